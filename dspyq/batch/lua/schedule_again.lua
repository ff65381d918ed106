-- Queues a failed or skipped time again.
-- Libraries: batch/schedule.
-- Arguments:
--   name   of the batch
--   label  of the time
-- Reply: 1, or 0 if it is in another state, or unknown.
local time = time_key(name, label)
local state = redis.call('HGET', time, 'state')

if state ~= 'failed' and state ~= 'skipped' then
  return 0
end
redis.call('HDEL', time, 'token', 'losses')
redis.call('HSET', time, 'state', 'pending')
return 1
