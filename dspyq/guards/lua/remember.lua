#!lua flags=allow-oom
-- Keeps a model call of a job for the job's later runs, as long as the job lives: its end deletes them all.
-- Arguments:
--   id         of the task
--   fence      of the run, '' for none
--   fields...  pairs of field and value: call:<id of the attempt> and its record, more:<the same> and fields
--              unknown to 0.1, reply:<key of the call> and the reply that was paid for, running_seconds and the
--              total of all runs
-- Reply: 1, or 0 where the run has lost its job: it was revoked, or another run has it.
local held_by = redis.call('HGET', JOB .. id, 'fence')
if held_by or redis.call('EXISTS', JOB .. id) == 1 then
  redis.call('HSET', CALLS .. id, unpack(fields))
end
return (fence == '' or held_by == fence) and 1 or 0
