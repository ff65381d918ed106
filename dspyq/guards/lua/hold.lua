#!lua
-- Holds the most that a call may cost, in every account it counts in, if all their limits allow it.
-- Because of the first line, Redis refuses the whole script when out of memory.
-- Libraries: guards/call_limits.
-- Arguments:
--   id                    of the call, '' to only look
--   bound:number          nano-dollars
--   lease_seconds:number  until the bound is charged
-- Reply: {verdict, seconds to wait, scope, period, limit in nano-dollars}, the verdict one of
--   held       the call may be made; the limit is 1 where it has any, 0 where it has none, '' in a repetition
--   busy       only amounts held by other calls block it
--   exhausted  settled amounts block it; the wait is until the period ends
--   never      the bound is above the whole limit
--   killed     the variant is an arm of an experiment that was killed: none of its calls begins any more
--   clock      none of the caller's periods fits Redis's clock, whose time is in place of the wait
-- or, of the batch's own limits, with its scope and no period:
--   batch_busy    only amounts held by other calls of the batch block it
--   batch_limit   the batch's settled amount blocks it
--   batch_share   it would exceed the share of what the day's limit of all calls leaves; the wait is until the day ends
--   batch_closed  the batch has no account, and so no limits
local time = now_seconds()

local function damaged(key)
  return redis.error_reply('ERR ' .. key .. ' holds no amounts: mend or delete it')
end

if redis.call('SISMEMBER', KILLED_ARMS, program .. '.' .. variant) == 1 then -- also where the call was held before
  return { 'killed', '0', '', '', '' }
end
local state = id ~= '' and redis.pcall('HGET', hold_key(id), 'state')
if type(state) == 'table' and not is_marked_settled(id) then
  return state -- its key holds something else
end
if state == 'settled' or type(state) == 'table' then
  return redis.error_reply('ERR the call ' .. id .. ' is settled: each attempt needs an id of its own')
end
if state then -- the script is repeated
  if state == 'held' then
    redis.call('ZADD', BUDGET_LEASES, seconds(time + lease_seconds), id)
  end
  return { 'held', '0', '', '', '' }
end

local call = read_call()
if not choose_periods(call, time) then
  return { 'clock', whole(time), '', '', '' }
end

-- The batch's own verdict, nil if it may spend so much; and true if it has a limit.
local function ask_batch(batch)
  local account =
    redis.call('HMGET', batch_key(batch), 'opened', 'settled', 'held', 'max_nano_usd', 'budget_share')
  if not account[1] then
    return 'batch_closed'
  end
  local settled, held = amount_of(account[2]), amount_of(account[3])
  local most, share = account[4] and amount_of(account[4]), account[5] and amount_of(account[5])
  if not settled or not held or most == nil or share == nil then
    return 'damaged'
  end
  if most and settled + bound > most then
    return 'batch_limit', true, most
  end
  local is_busy = most and settled + held + bound > most
  local day = call.limits[1]
  if share and day and day.amount then
    local all = amount_of(redis.call('HGET', day.key, 'settled'))
    local own = redis.call('HMGET', batch_day_key(call), 'settled', 'held')
    settled, held = amount_of(own[1]), amount_of(own[2])
    if not all or not settled or not held then
      return 'damaged'
    end
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
  if verdict == 'damaged' then
    return damaged(batch_key(call.batch))
  end
  if verdict then
    local wait = verdict == 'batch_share' and seconds(call.limits[1].ends_at - time) or '0'
    return { verdict, wait, 'batch:' .. call.batch, '', whole(most or 0) }
  end
  is_limited = has_limit and '1' or '0'
end
for _, limit in ipairs(call.limits) do
  if limit.is_damaged then
    return damaged(BUDGET_LIMITS)
  end
  if limit.amount then
    is_limited = '1'
    if bound > limit.amount then
      return { 'never', '0', limit.scope, limit.period, whole(limit.amount) }
    end
    local account = redis.call('HMGET', limit.key, 'settled', 'held', 'refused')
    local settled, held = amount_of(account[1]), amount_of(account[2])
    if not settled or not held then
      return damaged(limit.key)
    end
    if settled + bound > limit.amount then
      if limit.scope == own_scope(call) and bound < (tonumber(account[3] or nil) or math.huge) then
        redis.call('HSET', limit.key, 'refused', whole(bound)) -- an experiment's arm that cannot pay is no arm
      end
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

redis.call('ZADD', BUDGET_LEASES, seconds(time + lease_seconds), id) -- first, as it fails if the leases are damaged
local held_in = #call.limits == 0 and '000000' or ''
for _, limit in ipairs(call.limits) do
  held_in = held_in .. (limit.amount and '1' or '0')
  if limit.amount and increment(limit.key, 'held', bound) == bound then -- nothing else is: it may be a new one
    redis.call('EXPIREAT', limit.key, whole(limit.ends_at + SECONDS_AFTER_PERIOD))
  end
end
redis.call(
  'HSET', hold_key(id), 'state', 'held', 'bound', whole(bound), 'day', call.day, 'month', call.month,
  'program', call.program, 'variant', call.variant, 'model', call.model, 'held_in', held_in
)
-- Its worker or a sweep ends it much sooner; until then it must outlive the accounts it is held in.
redis.call('EXPIRE', hold_key(id), SECONDS_OF_BOOKS)
if call.payer then
  redis.call('HSET', hold_key(id), 'payer', call.payer)
end
if call.batch then
  redis.call('HSET', hold_key(id), 'batch', call.batch)
  move_in_batch(call, 0, bound)
  note(call.batch, id, '^', bound)
end
return { 'held', '0', '', '', is_limited }
