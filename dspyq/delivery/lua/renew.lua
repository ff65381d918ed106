#!lua flags=allow-oom
-- Renews leases. A lease that ran out is taken back as long as no other run took the job.
-- Keys: see jobs.lua.
-- Arguments: lease, seconds; then id and fence of each run.
-- Reply: the positions, from 1, of the runs that lost their job.
local until_second = seconds_from_now(ARGV[1])

local lost = {}
for index = 2, #ARGV, 2 do
  local id, fence = ARGV[index], ARGV[index + 1]
  if holds(id, fence) then
    leave(id)
    redis.call('ZADD', LEASES, until_second, id)
  else
    lost[#lost + 1] = index / 2
  end
end
return lost
