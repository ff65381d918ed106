#!lua flags=allow-oom
-- Ends a job: deletes its record, and its lease, or its turn if the lease expired and no run took the job since.
-- Libraries: delivery/jobs.
-- Arguments:
--   id     of the job
--   fence  of the run
-- Reply: 1, or 0 if this run has lost the job.

if not holds(id, fence) then
  return 0
end
leave(id)
if redis.call('HGET', JOB .. id, 'child') then
  redis.call('SET', DONE .. id, '', 'EX', SECONDS_DONE)
end
erase(id)
return 1
