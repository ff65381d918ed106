-- Writes the next state of a program's experiment, unless another change came first.
-- Keys:
--   state          EXPERIMENT_HOME: of the program
--   log            EXPERIMENT_LOG: of the program
-- Arguments:
--   expected       the version that the change was made from, '' for none
--   version        the new one
--   written        the new state
--   id             a random name of the change
--   plan           the frozen plan, '' to keep the one there is
--   counting       the settings of the counts, '' to keep those there are
--   entry          for the log
--   announcement   for every process's memory
--   channel        on which it is published, '' for none: copies of the state are announced when they are written
--   most:number    entries that the log keeps
--   arms...        pairs of an arm's queue and '1' where it is killed, else '': model calls begin by these
-- Reply: 1; or 0 if the version is another: then nothing is changed. A repeat after a lost connection replies 1.
local found = redis.call('HMGET', state, 'version', 'change')
if found[1] == version and found[2] == id then
  return 1
end
if (found[1] or '') ~= expected then
  return 0
end
redis.call('HSET', state, 'version', version, 'state', written, 'change', id)
if plan ~= '' then
  redis.call('HSET', state, 'plan', plan, 'counting', counting)
end
for index = 1, #arms, 2 do
  redis.call(arms[index + 1] == '1' and 'SADD' or 'SREM', KILLED_ARMS, arms[index])
end
redis.call('XADD', log, 'MAXLEN', most, '*', 'entry', entry)
if channel ~= '' then
  redis.call(PUBLISH, channel, announcement)
end
return 1
