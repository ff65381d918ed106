#!lua
-- Holds the most that a call may cost, in every account it counts in, if all their limits allow it.
-- The first line has Redis refuse it whole where it is out of memory.
-- Arguments: id of the call, '' to only look; bound in nano-dollars; seconds of the lease; then those of read_call.
-- Reply: {verdict, seconds to wait, scope, period, limit in nano-dollars}, the verdict one of
--   held       the call may be made; the limit is 1 where it has any, 0 where it has none, '' in a repetition
--   busy       only what other calls hold stands in its way
--   exhausted  what is settled does; the wait is until the period ends
--   never      the bound is above the whole limit
--   clock      none of the caller's periods fits Redis's clock, whose time is in place of the wait
local id, bound, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local FIRST = 4
local time = now()

local state = id ~= '' and redis.call('HGET', hold_key(id), 'state')
if state == 'settled' then
  return redis.error_reply('ERR the call ' .. id .. ' is settled: each attempt needs an id of its own')
end
if state then -- the script is repeated
  if state == 'held' then
    redis.call('ZADD', LEASES, seconds(time + lease), id)
  end
  return { 'held', '0', '', '', '' }
end

local call = read_call(FIRST)
if not choose_periods(call, FIRST, time) then
  return { 'clock', whole(time), '', '', '' }
end

local exhausted, busy
local is_limited = '0'
for _, limit in ipairs(call.limits) do
  if limit.amount then
    is_limited = '1'
    if bound > limit.amount then
      return { 'never', '0', limit.scope, limit.period, whole(limit.amount) }
    end
    local account = redis.call('HMGET', limit.key, 'settled', 'held')
    local settled, held = tonumber(account[1] or 0), tonumber(account[2] or 0)
    if settled + bound > limit.amount then
      if not exhausted or limit.ends_at > exhausted.ends_at then
        exhausted = limit
      end
    elseif settled + held + bound > limit.amount then
      busy = busy or limit
    end
  end
end
if exhausted then
  local wait = seconds(exhausted.ends_at - time)
  return { 'exhausted', wait, exhausted.scope, exhausted.period, whole(exhausted.amount) }
end
if busy then
  return { 'busy', '0', busy.scope, busy.period, whole(busy.amount) }
end
if id == '' then
  return { 'held', '0', '', '', is_limited }
end

for _, limit in ipairs(call.limits) do
  if redis.call('HINCRBY', limit.key, 'held', whole(bound)) == bound then -- nothing else is: it may be a new one
    redis.call('EXPIREAT', limit.key, whole(limit.ends_at + SECONDS_AFTER_PERIOD))
  end
end
redis.call(
  'HSET', hold_key(id), 'state', 'held', 'bound', whole(bound), 'day', call.day, 'month', call.month,
  'program', call.program, 'variant', call.variant, 'model', call.model
)
redis.call('ZADD', LEASES, seconds(time + lease), id)
return { 'held', '0', '', '', is_limited }
