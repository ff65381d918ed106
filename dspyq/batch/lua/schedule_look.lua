-- Tells up to when the times of a batch are known; those of one that was never seen, from now on.
-- Keys: see schedule.lua.
-- Arguments: name.
-- Reply: {now, the second up to which they are known}.
local time = seconds(now())
redis.call('SET', seen_key(ARGV[1]), time, 'NX')
return { time, redis.call('GET', seen_key(ARGV[1])) }
