-- Claims and puts those of many questions of one queue that nothing is known of yet; the others stay as they are.
-- Libraries: cache/claims, delivery/turns, experiments/state.
-- Keys:
--   aliases...       PREDICTION: of the questions
-- Arguments:
--   queue            the variant's
--   priority:number  0 is the most urgent
--   batch            of the caller, '' for none
--   seen             as of claiming.lua
--   tenant           of the caller, '' for none
--   is_spread?       '1' where there are several Redis servers
--   jobs...          the task's id and the message of each
-- Reply: for each question 1 where it was claimed and put, 0 where claim.lua must decide: it is answered or claimed, its
--   alias is of another type, its task has a job, its bucket has moved to another Redis, or the experiment's state is
--   another.
local made, replies, new, places = {}, {}, {}, {}
local is_stale = other_state(queue, seen) ~= nil
local moved = is_spread == '1' and redis.call('GET', MOVED_BUCKETS) or ''

-- Whether a bit of that bitmap is set.
local function has_moved(alias)
  local bucket = bucket_of(alias)
  local byte = string.byte(moved, math.floor(bucket / 8) + 1) or 0
  return math.floor(byte / 2 ^ (7 - bucket % 8)) % 2 == 1
end

for index, alias in ipairs(aliases) do
  local id = jobs[2 * index - 1]
  if is_stale or made[alias] or made[id] or moved ~= '' and has_moved(alias) or redis.call('EXISTS', alias, JOB .. id) > 0 then
    replies[index] = 0
  else
    made[alias], made[id], replies[index] = true, true, 1
    new[#new + 1] = index
  end
end
if #new > 0 then
  -- Their places first, as put.lua has it: an id without a record is no job.
  local before = redis.call('INCRBY', SEQUENCE, #new) - #new
  if tenant ~= '' or before >= SEQUENCES_WITH_TENANTS then
    before = fair_turn(queue, priority, tenant, before + 1, #new) - 1
  end
  local scores = {}
  for number, index in ipairs(new) do
    scores[number] = whole(priority * SEQUENCES_PER_PRIORITY + before + number)
    places[2 * number - 1], places[2 * number] = scores[number], jobs[2 * index - 1]
  end
  line_up_many(queue, places)
  local put_at, since = seconds_from_now(0), whole(now_milliseconds())
  for number, index in ipairs(new) do
    local alias, id, message = aliases[index], jobs[2 * index - 1], jobs[2 * index]
    redis.call(
      'HSET', JOB .. id, 'message', message, 'queue', queue, 'score', scores[number], 'generation', 0,
      'put_at', put_at, 'input_hash', string.sub(alias, #PREDICTION + 1)
    )
    redis.call('HSET', alias, 'queue', queue, 'pending', id, 'since', since, 'priority', priority, 'joined', 0)
    if batch ~= '' then
      redis.call('HSET', alias, 'batch', batch)
    end
    if tenant ~= '' then
      redis.call('HSET', alias, 'tenant', tenant)
      redis.call('HSET', JOB .. id, 'tenant', tenant)
    end
  end
  count(queue, { 'misses', #new })
end
return replies
