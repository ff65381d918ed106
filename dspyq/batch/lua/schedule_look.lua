-- Reads the second up to which the times of a batch are known; for a new batch that is now.
-- Libraries: batch/schedule.
-- Arguments:
--   name  of the batch
-- Reply: {now, the second up to which they are known}.
local time = seconds(now_seconds())
redis.call('SET', seen_key(name), time, 'NX')
return { time, redis.call('GET', seen_key(name)) }
