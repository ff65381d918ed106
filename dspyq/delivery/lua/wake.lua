#!lua flags=allow-oom
-- Wakes sleeping jobs whose further calls are to be made live.
-- Libraries: delivery/sleepers.
-- Arguments:
--   ids...  of the jobs
-- Reply: the number of those that slept.
local woken = 0
for _, id in ipairs(ids) do
  if redis.call('EXISTS', JOB .. id) == 1 then
    redis.call('HSET', JOB .. id, 'live', 1)
    woken = woken + (wake(id) and 1 or 0)
  end
end
return woken
