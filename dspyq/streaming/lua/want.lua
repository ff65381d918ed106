-- Turns the stream of a job's next run on, for a caller that joined it.
-- Arguments:
--   id  of the task
-- Reply: 1 where there is such a job, else 0.
if redis.call('EXISTS', JOB .. id) == 0 then
  return 0
end
redis.call('HSET', JOB .. id, 'stream', 1)
return 1
