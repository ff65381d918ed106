#!lua flags=allow-oom
-- Keeps a model call of a job for the job's later runs, as long as the job lives: its end deletes them all.
-- Keys: none; dspy:v1:calls:<task id> is built inside, so this is for one Redis, not for Redis Cluster.
-- Arguments: task id; the run's fence, '' for none; pairs of field and value: call:<id of the attempt> and what is known
--   of it, reply:<key of the call> and the reply that was paid for, running_seconds and how long all runs took together.
-- Reply: 1, or 0 where the run has lost its job: it was revoked, or another run has it.
local id, fence = ARGV[1], ARGV[2]
local job = 'dspy:v1:job:' .. id
if redis.call('EXISTS', job) == 1 then
  redis.call('HSET', 'dspy:v1:calls:' .. id, unpack(ARGV, 3))
end
return (fence == '' or redis.call('HGET', job, 'fence') == fence) and 1 or 0
