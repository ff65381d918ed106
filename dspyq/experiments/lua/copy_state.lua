-- Writes the state of a program's experiment where a copy of it is, unless that is as new.
-- Keys:
--   state            EXPERIMENT_STATE: of the program
-- Arguments:
--   version:number   of the state
--   change           the random name of its change: of two states of one version, the given one stays
--   announcement     for every process's memory, '' for none
--   fields...        pairs of a field of the state's hash and its value
-- Reply: 1 if it was written.
local found = redis.call('HMGET', state, 'version', 'change')
local known = tonumber(found[1] or 0) or 0
if known > version or (known == version and found[2] == change) then
  return 0
end
redis.call('HSET', state, unpack(fields))
if announcement ~= '' then
  redis.call(PUBLISH, INVALIDATIONS, announcement)
end
return 1
