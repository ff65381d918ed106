-- Leases a time for as long again. A lease that ran out is taken back as long as nobody else looked at it since.
-- Keys: see schedule.lua.
-- Arguments: name; label; token; lease, seconds.
-- Reply: 1, or 0 where the time is the caller's no more.
local time = time_key(ARGV[1], ARGV[2])

if not is_of(time, ARGV[3]) or redis.call('HGET', time, 'state') ~= 'running' then
  return 0
end
redis.call('HSET', time, 'lease', seconds(now() + ARGV[4]))
return 1
