#!lua flags=allow-oom
-- Ends a job: its record goes, and its lease, or its turn where the lease ran out and nobody took the job since.
-- Keys: see jobs.lua.
-- Arguments: id; the run's fence.
-- Reply: 1, or 0 where the job is this run's no more.
local id, fence = ARGV[1], ARGV[2]

if not holds(id, fence) then
  return 0
end
leave(id)
if redis.call('HGET', job_key(id), 'child') then
  redis.call('SET', done_key(id), '', 'EX', SECONDS_DONE)
end
erase(id)
return 1
