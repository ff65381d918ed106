#!lua flags=allow-oom
-- Leases the first jobs of a queue, each to a new run of it. One bell was heard for all of them: those of the others are
--   taken out of the list, where anything else that stands there stays.
-- Keys: see library.lua.
-- Arguments: queue name; lease, seconds; the most jobs to take.
-- Reply: for each, in their order, {id, the run's fence, how many runs it had, this one included, how often it was
--   handed back, message, 1 where its question is claimed for it and not answered}.
local queue, lease_seconds, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local lease_ends = seconds_from_now(lease_seconds)
local taken = {}

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

while #taken < limit do
  local id = redis.call('ZPOPMIN', queue_key(queue))[1]
  if not id then
    break
  end
  local job = redis.call('HMGET', job_key(id), 'message', 'hand_backs')
  local message, hand_backs = job[1], job[2] or 0
  if message then -- no record, no delivery
    local fence = redis.call('INCR', SEQUENCE) -- never given out before, not even to an ended job of this id
    redis.call('ZADD', LEASES, lease_ends, id)
    redis.call('HSET', job_key(id), 'fence', fence)
    local runs, is_claimed = redis.call('HINCRBY', job_key(id), 'runs', 1), claims_its_question(id, message)
    taken[#taken + 1] = { id, fence, runs, hand_backs, message, is_claimed }
  end
end
if #taken > 1 then
  redis.call('LREM', queue, 1 - #taken, BELL)
end
return taken
