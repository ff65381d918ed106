-- Looks a question up and, where nobody answers it, claims it.
-- KEYS  1 alias   2 statistics of the variant
-- ARGV  1 task id that claims   2 '1' to pass over an answer   3 seconds a claim without a job record holds
--       4 priority (0 most urgent)   5 program   6 variant   7 prefix of result keys, '' where answers live elsewhere
--       8 task id of an answer found to be gone, ''   9 '1' when a worker asks: it waits only for a run that is leased
--       10 '1' to count this call
-- Reply {verdict, task id, result or '', milliseconds the answer is good for}, verdict one of
--   hit    that task answered it
--   join   that task will answer it
--   urge   as join, and this call is more urgent: put its message again
--   claim  nobody does: the question is yours
local alias, statistics = KEYS[1], KEYS[2]
local id, refresh, hold, priority = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]) * 1000, tonumber(ARGV[4])
local gone, by_worker, counts = ARGV[8], ARGV[9] == '1', ARGV[10] == '1'
local now = now_milliseconds()
local held = redis.call('HMGET', alias, 'answered', 'until', 'pending', 'since', 'priority')
local answered, till, pending, since = held[1], tonumber(held[2] or 0), held[3], tonumber(held[4] or 0)

local function counted(field)
  if not counts then return end
  redis.call('HINCRBY', statistics, 'calls', 1)
  redis.call('HINCRBY', statistics, field, 1)
end

if gone ~= '' and counts then
  redis.call('HINCRBY', statistics, 'calls', -1)
  redis.call('HINCRBY', statistics, 'hits_redis', -1)
end

if answered and (not refresh or answered == id) then
  local result = ''
  if ARGV[7] ~= '' then result = redis.call('GET', ARGV[7] .. answered) end
  if result and till > now and answered ~= gone then
    counted('hits_redis')
    return {'hit', answered, result, whole(till - now)}
  end
  redis.call('HDEL', alias, 'answered', 'until')
end

if pending and pending ~= id then
  local alive
  if by_worker then alive = redis.call('ZSCORE', PREFIX .. 'leases', pending)
  else alive = now - since < hold or redis.call('EXISTS', PREFIX .. 'job:' .. pending) == 1 end
  if alive then
    counted('joined')
    if by_worker then return {'join', pending, '', 0} end
    redis.call('HINCRBY', alias, 'joined', 1)
    if priority < tonumber(held[5]) then
      redis.call('HSET', alias, 'priority', priority)
      return {'urge', pending, '', 0}
    end
    return {'join', pending, '', 0}
  end
end

if pending ~= id then
  redis.call('HSET', alias, 'program', ARGV[5], 'variant', ARGV[6], 'pending', id, 'since', whole(now),
    'priority', priority, 'joined', 0)
  redis.call('PERSIST', alias)
end
if counts then counted('misses') end
return {'claim', id, '', 0}
