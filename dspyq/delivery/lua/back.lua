#!lua flags=allow-oom
-- Gives jobs back before they are done: to their queues at their old turns, now or later, or out of the traffic.
-- Keys: see jobs.lua.
-- Arguments: seconds until they may be taken again, 0 for now, negative to set them aside; the reason, for the latter;
--   '1' where this worker cannot run them and others may, which is counted, otherwise ''; then id and fence of each run.
-- Reply: how many were given back; the others are their runs' no more.
local delay_seconds, reason, is_hand_back = tonumber(ARGV[1]), ARGV[2], ARGV[3] == '1'

local given = 0
for index = 4, #ARGV, 2 do
  local id, fence = ARGV[index], ARGV[index + 1]
  if holds(id, fence) then
    given = given + 1
    leave(id)
    if is_hand_back then
      redis.call('HINCRBY', job_key(id), 'hand_backs', 1)
    end
    redis.call('HINCRBY', job_key(id), 'fence', 1) -- or the run's next renewal would lease it again
    if delay_seconds < 0 then
      set_aside(id, reason)
    elseif delay_seconds > 0 then
      redis.call('ZADD', DELAYED, seconds_from_now(delay_seconds), id)
    else
      enqueue(id)
    end
  end
end
return given
