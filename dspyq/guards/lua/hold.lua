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
-- or, of the batch's own limits, with its scope and no period:
--   batch_busy    only what other calls of the batch hold stands in its way
--   batch_limit   what the batch settled does
--   batch_share   it would exceed the share of what the day's limit of all calls leaves; the wait is until the day ends
--   batch_closed  the batch has no account: nobody says what it may spend
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

-- The batch's own verdict, nil where it may spend so much; and whether it has a limit.
local function ask_batch(batch)
  local account =
    redis.call('HMGET', batch_key(batch), 'opened', 'settled', 'held', 'max_nano_usd', 'budget_share')
  if not account[1] then
    return 'batch_closed'
  end
  local settled, held = tonumber(account[2] or 0), tonumber(account[3] or 0)
  local most, share = tonumber(account[4]), tonumber(account[5])
  if most and settled + bound > most then
    return 'batch_limit', true, most
  end
  local is_busy = most and settled + held + bound > most
  local day = call.limits[1]
  if share and day.amount then
    local all = tonumber(redis.call('HGET', day.key, 'settled') or 0)
    local own = redis.call('HMGET', batch_day_key(call), 'settled', 'held')
    settled, held = tonumber(own[1] or 0), tonumber(own[2] or 0)
    local share_of_day = math.floor(share * math.max(0, day.amount - math.max(0, all - settled)))
    if settled + bound > share_of_day then
      return 'batch_share', true, share_of_day
    end
    is_busy = is_busy or settled + held + bound > share_of_day
  end
  return is_busy and 'batch_busy' or nil, most or share
end

local exhausted, busy
local is_limited = '0'
if call.batch then
  local verdict, has_limit, most = ask_batch(call.batch)
  if verdict then
    local wait = verdict == 'batch_share' and seconds(call.limits[1].ends_at - time) or '0'
    return { verdict, wait, 'batch:' .. call.batch, '', whole(most or 0) }
  end
  is_limited = has_limit and '1' or '0'
end
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
if call.batch then
  redis.call('HSET', hold_key(id), 'batch', call.batch)
  move_in_batch(call, 0, bound)
  note(call.batch, id, '^', bound)
end
redis.call('ZADD', LEASES, seconds(time + lease), id)
return { 'held', '0', '', '', is_limited }
