#!lua flags=allow-oom
-- Renews leases. An expired lease is renewed too, if no other run has taken the job.
-- Libraries: delivery/jobs.
-- Arguments:
--   lease_seconds:number  from now on
--   runs...               id and fence of each
-- Reply: the positions, from 1, of the runs that lost their job.
local until_second = seconds_from_now(lease_seconds)

local lost = {}
for index = 1, #runs, 2 do
  local id, fence = runs[index], runs[index + 1]
  if holds(id, fence) then
    leave(id)
    redis.call('ZADD', LEASES, until_second, id)
  else
    lost[#lost + 1] = (index + 1) / 2
  end
end
return lost
