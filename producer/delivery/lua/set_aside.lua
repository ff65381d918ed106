#!lua flags=allow-oom
-- Takes a job out of its place for good: nobody runs it again, and its record stays to be looked at.
-- Keys: see library.lua.
-- Arguments: id; the run's fence.
-- Reply: 1, or 0 where the job is this run's no more.
local id, fence = ARGV[1], ARGV[2]

if not holds(id, fence) then
  return 0
end
leave(id)
redis.call('HINCRBY', job_key(id), 'fence', 1) -- or the run's next renewal would lease it again
return 1
