#!lua flags=allow-oom
-- Leases the first job of a queue to a new run of it.
-- Keys: see jobs.lua.
-- Arguments: queue name; lease, seconds.
-- Reply: {id, the run's fence, how many runs it had, this one included, how often it was handed back, message, 1 where
--   its question is claimed for it and not answered}, or nil where nothing waits.
local queue, lease_seconds = ARGV[1], ARGV[2]

-- Whether the alias of the question that a message asks says that this job is to answer it: then the run need not look.
-- Where the text is no prediction's, no alias says so.
local function claims_its_question(id, message)
  local at = string.find(message, '"input_hash"', 1, true)
  local input_hash = at and string.match(message, '^"input_hash": ?"(%x+)"', at)
  if not input_hash then
    return 0
  end
  local alias = redis.call('HMGET', PREFIX .. 'prediction:' .. input_hash, 'pending', 'answered')
  return alias[1] == id and not alias[2] and 1 or 0
end

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
    local runs = redis.call('HINCRBY', job_key(id), 'runs', 1)
    return { id, fence, runs, hand_backs, message, claims_its_question(id, message) }
  end
end
