#!lua flags=allow-oom
-- Queues jobs that were set aside as if they were new, at their old turns.
-- Keys: see jobs.lua.
-- Arguments: ids.
-- Reply: how many of them were set aside.
local replayed = 0
for _, id in ipairs(ARGV) do
  if redis.call('ZREM', DEAD, id) == 1 then
    redis.call('SREM', UNTOLD, id)
    redis.call('HDEL', job_key(id), 'reason')
    redis.call('HSET', job_key(id), 'lost', 0)
    enqueue(id)
    replayed = replayed + 1
  end
end
return replayed
