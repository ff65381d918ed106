#!lua flags=allow-oom
-- Queues dead-lettered jobs as if they were new, at their old turns.
-- Libraries: delivery/jobs.
-- Arguments:
--   ids...  of the jobs
-- Reply: the number of them that were dead-lettered.
local replayed = 0
for _, id in ipairs(ids) do
  if redis.call('ZREM', DEAD, id) == 1 then
    redis.call('SREM', UNTOLD, id)
    if redis.call('EXISTS', JOB .. id) == 1 then -- else this would create an empty record
      redis.call('HDEL', JOB .. id, 'reason')
      redis.call('HSET', JOB .. id, 'lost', 0)
      enqueue(id)
      replayed = replayed + 1
    end
  end
end
return replayed
