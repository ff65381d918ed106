#!lua flags=allow-oom
-- Queues dead-lettered jobs as if they were new, at their old turns, and withdraws their failures.
-- Libraries: delivery/jobs.
-- Arguments:
--   jobs...  of each its id, the number of tasks whose stored results state its failure, and their ids
-- Reply: the number of them that were dead-lettered.

-- What is stored by now is withdrawn only with the job's end as a dead one: no later outcome is.
local function replay(id, failed_from, failed_to)
  if redis.call('ZREM', DEAD, id) == 0 then
    return 0
  end
  redis.call('SREM', UNTOLD, id)
  if redis.call('EXISTS', JOB .. id) == 0 then -- this would create an empty record
    return 0
  end
  for place = failed_from, failed_to do
    redis.call('DEL', RESULT .. jobs[place])
  end
  redis.call('HDEL', JOB .. id, 'reason')
  redis.call('HSET', JOB .. id, 'lost', 0)
  enqueue(id)
  return 1
end

local replayed, place = 0, 1
while jobs[place] do
  local failed = tonumber(jobs[place + 1])
  replayed = replayed + replay(jobs[place], place + 2, place + 1 + failed)
  place = place + 2 + failed
end
return replayed
