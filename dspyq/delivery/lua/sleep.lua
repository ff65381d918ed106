#!lua flags=allow-oom
-- Puts the job of a run to sleep until its lines have landed; into its queue where they have, or where a caller waits who
-- is no batch.
-- Libraries: delivery/sleepers.
-- Arguments:
--   id                    of the job
--   fence                 of the run
--   longest_seconds:number  after which it is taken again all the same
--   is_stray              '1' where its program did not ask again what it had asked before, else ''
-- Reply: 1 where it sleeps, 2 where it is in its queue, 0 where this run has lost the job.

if not holds(id, fence) then
  return 0
end
local job = JOB .. id
leave(id)
redis.call('HINCRBY', job, 'fence', 1) -- as back.lua does
redis.call('HINCRBY', job, 'rounds', 1)
if is_stray == '1' then
  redis.call('HINCRBY', job, 'strays', 1)
end
local alias = alias_of(id)
local is_live = alias and redis.call('HEXISTS', alias, 'live') == 1 or redis.call('HEXISTS', job, 'live') == 1
if is_live or tonumber(redis.call('HGET', job, 'lines') or 0) <= 0 then
  enqueue(id)
  return 2
end
redis.call('HSET', job, 'asleep', 1)
redis.call('ZADD', DELAYED, seconds_from_now(longest_seconds), id)
return 1
