-- Looks a question up and, where nobody answers it, claims it.
-- Keys: its alias.
-- Arguments: task id that claims; flags; seconds a claim without a job record holds; priority (0, the most urgent);
--   queue; prefix of result keys, '' where answers live elsewhere; task id of an answer found to be gone there, or '';
--   the fence of a worker's run, '' for none; label of the current day; the batch that asks, '' for none.
-- Flags: r  pass over an answer   w  a worker asks: it waits only for a run that is leased   c  count this call
-- Reply: {verdict, task id, result or '', milliseconds the answer is good for, the batch that claimed it or ''}, the
--   verdict one of
--   hit    that task answered it
--   join   that task will answer it
--   urge   as join, and this call is more urgent or nobody has put its message yet: put it
--   claim  nobody does: the question is the asker's, or was so already
--   lost   the run has lost its job, and nothing was looked up
local alias = KEYS[1]
local id, flags, hold, priority = ARGV[1], ARGV[2], tonumber(ARGV[3]) * 1000, tonumber(ARGV[4])
local queue, result_prefix, gone, fence, day, batch = unpack(ARGV, 5, 10)
local is_refresh = string.find(flags, 'r', 1, true)
local by_worker = string.find(flags, 'w', 1, true)
local counts = string.find(flags, 'c', 1, true)

if not holds(id, fence) then
  return { 'lost', id, '', 0, '' }
end
local held = redis.call('HMGET', alias, 'answered', 'until', 'pending', 'since', 'priority', 'cost', 'batch')
local answered, till, pending, since = held[1], tonumber(held[2] or 0), held[3], tonumber(held[4] or 0)
local cost, owner, time = tonumber(held[6] or 0), held[7] or '', now()

local function counted(field)
  if counts then
    count(queue, { field, 1 })
  end
end

if gone ~= '' and counts then
  count(queue, { 'hits_redis', -1 })
  if answered == gone then
    avoided(day, queue, -cost)
  end
end

if answered and (not is_refresh or answered == id) then
  local result = ''
  if result_prefix ~= '' then
    result = redis.call('GET', result_prefix .. answered)
  end
  if result and till > time and answered ~= gone then
    if counts then
      count(queue, { 'hits_redis', 1 })
      avoided(day, queue, cost)
    end
    return { 'hit', answered, result, till - time, '' }
  end
  redis.call('HDEL', alias, 'answered', 'until', 'cost')
end

local is_asked_again = pending == id
local is_owner = is_asked_again and (by_worker or batch == owner)
if pending and not is_owner then
  local has_job = redis.call('EXISTS', PREFIX .. 'job:' .. pending) == 1
  local is_alive = has_job or time - since < hold
  if by_worker then
    is_alive = redis.call('ZSCORE', PREFIX .. 'leases', pending)
  end
  if is_alive then
    if not is_asked_again then
      counted('joined')
    end
    if by_worker then
      return { 'join', pending, '', 0, owner }
    end
    redis.call('HINCRBY', alias, 'joined', is_asked_again and 0 or 1)
    if priority < tonumber(held[5]) then
      redis.call('HSET', alias, 'priority', priority)
    elseif has_job then
      return { 'join', pending, '', 0, owner }
    end
    return { 'urge', pending, '', 0, owner }
  end
end

if not is_owner then
  redis.call('HSET', alias, 'queue', queue, 'pending', id, 'since', whole(time), 'priority', priority, 'joined', 0)
  if batch ~= '' then
    redis.call('HSET', alias, 'batch', batch)
  elseif owner ~= '' then
    redis.call('HDEL', alias, 'batch')
  end
  -- Whoever joined this run before its question was invalidated or taken over is not counted any more.
  if by_worker and not counts or not by_worker and redis.call('EXISTS', PREFIX .. 'job:' .. id) == 1 then
    redis.call('HSET', alias, 'uncounted', 1)
  elseif pending then
    redis.call('HDEL', alias, 'uncounted')
  end
  if answered then
    redis.call('PERSIST', alias)
  end
  counted('misses')
end
return { 'claim', id, '', 0, batch }
