#!lua flags=allow-oom
-- Keeps a model call of a job for the job's later runs, as long as the job lives: its end deletes them all.
-- Keys: none; dspy:v1:calls:<task id> is built inside, so this is for one Redis, not for Redis Cluster.
-- Arguments: task id; pairs of field and value: call:<id of the attempt> and what is known of it, reply:<key of the call>
--   and the reply that was paid for, running_seconds and how long all runs took together.
-- Reply: 1, or 0 where the job is gone.
local id = table.remove(ARGV, 1)
if redis.call('EXISTS', 'dspy:v1:job:' .. id) == 0 then
  return 0
end
redis.call('HSET', 'dspy:v1:calls:' .. id, unpack(ARGV))
return 1
