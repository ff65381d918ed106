#!lua flags=allow-oom
-- Leases the first job of a queue to a new run of it.
-- Keys: see library.lua.
-- Arguments: queue name; lease, seconds.
-- Reply: {id, the run's fence, how many runs it had, this one included, how often it was handed back, message}, or nil
--   where nothing waits.
local queue, lease_seconds = ARGV[1], ARGV[2]

while true do
  local id = redis.call('ZPOPMIN', queue_key(queue))[1]
  if not id then
    return nil
  end
  local job = redis.call('HMGET', job_key(id), 'message', 'hand_backs')
  local message, hand_backs = job[1], job[2] or 0
  if message then -- no record, no delivery
    local fence = redis.call('INCR', SEQUENCE) -- never given out before, not even to an ended job of this id
    redis.call('ZADD', LEASES, seconds_from_now(lease_seconds), id)
    redis.call('HSET', job_key(id), 'fence', fence)
    return { id, fence, redis.call('HINCRBY', job_key(id), 'runs', 1), hand_backs, message }
  end
end
