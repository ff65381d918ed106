#!lua flags=allow-oom
-- Stores a run's answer, tells its waiters, lets the alias serve it, and ends the job where that was all it had to do.
-- Keys: alias; result, left out where answers live elsewhere.
-- Arguments: task id; the run's fence, '' for none; seconds to serve the answer, 0 for not at all; seconds to keep the
--   result; result; input hash; queue; nano-dollars that it cost, 0 where
--   unknown; label of the current day; '1' where nothing is left to do, else ''; then pairs of statistics field and
--   amount.
-- Reply: 1; 2 where the job is ended too; or 0 where another run has taken the job: then nothing is stored.
local alias, result_key = KEYS[1], KEYS[2]
local id, fence, serve, keep, result, input_hash, queue, cost, day, is_last = unpack(ARGV, 1, 10)

-- Ends the job, unless its lease has run out, or another task published it and is to know that it is done: then that is
-- left to finish.lua.
local function end_job()
  local job = PREFIX .. 'job:' .. id
  if is_last ~= '1' or redis.call('HEXISTS', job, 'child') == 1 or redis.call('ZREM', PREFIX .. 'leases', id) == 0 then
    return 1
  end
  redis.call('DEL', job, PREFIX .. 'calls:' .. id)
  return 2
end

if not holds(id, fence) then
  return 0
end
local reply = end_job()
if result_key then
  redis.call('SET', result_key, result, 'EX', keep)
  redis.call('PUBLISH', result_key, result)
end
local held = redis.call('HMGET', alias, 'pending', 'answered', 'joined')
local pending, answered, joined = held[1], held[2], held[3]
if answered == id then -- delivered again: it is counted and served already
  return reply
end
count(queue, { unpack(ARGV, 11) })
if pending ~= id then -- invalidated or forgotten meanwhile: it must not come back
  return reply
end
count(queue, { 'successes', joined })
avoided(day, queue, cost * joined)
if tonumber(serve) == 0 then
  release(alias)
  return reply
end
local till = whole(now() + tonumber(serve) * 1000)
redis.call('HDEL', alias, 'pending', 'since', 'priority', 'joined', 'uncounted', 'batch')
redis.call('HSET', alias, 'answered', id, 'until', till, 'cost', cost)
redis.call('PEXPIREAT', alias, till)
if answered then
  redis.call('PUBLISH', INVALIDATIONS, input_hash)
end
return reply
