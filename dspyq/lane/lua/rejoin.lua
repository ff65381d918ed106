#!lua flags=allow-oom
-- Has a job that was put anew wait for a line that its earlier runs left.
-- Libraries: lane/lines.
-- Arguments:
--   task  the job
-- Reply: 1, or 0 where it waits for lines already, or is gone.
local job = JOB .. task
if redis.call('EXISTS', job) == 0 then
  return 0
end
return redis.call('HSETNX', job, 'lines', '1')
