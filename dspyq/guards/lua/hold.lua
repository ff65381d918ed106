#!lua
-- Holds the most that a call may cost, in every account it counts in, if all their limits allow it.
-- Because of the first line, Redis refuses the whole script when out of memory.
-- Libraries: guards/call_limits.
-- Arguments:
--   id                    of the call, '' to only look
--   bound:number          nano-dollars
--   lease_seconds:number  until the bound is charged
--   row_calls:number?     of a batch's row that is to begin: how many calls it needs. Then there must be money for all of
--                         them, and for what the batch's rows under way still need
--   lane_share:number?    of a call in a lane, which is held for hours: the most of what a day's limit has left that calls
--                         may hold together, from 0 to 1
-- Reply: {verdict, seconds to wait, scope, period, limit in nano-dollars}, the verdict one of
--   held       the call may be made; the limit is 1 where it has any, 0 where it has none, '' in a repetition
--   busy       only amounts held by other calls block it
--   exhausted  settled amounts block it; the wait is until the period ends
--   never      the bound is above the whole limit
--   killed     the variant is an arm of an experiment that was killed: none of its calls begins any more
--   clock      none of the caller's periods fits Redis's clock, whose time is in place of the wait
-- or, where nothing but its tenant blocks it, so that others need not wait for that:
--   tenant_busy   only amounts held by other calls of the tenant block it
--   tenant_limit  the tenant's settled amount blocks it; the wait is until the period ends
--   tenant_rate   the tenant has no turn yet; the wait is until the call is to ask again
-- or, of the batch's own limits, with its scope and no period:
--   batch_busy    only amounts held by other calls of the batch block it
--   batch_limit   the batch's settled amount blocks it
--   batch_share   it would exceed the share of what the day's limit of all calls leaves; the wait is until the day ends
--   batch_closed  the batch has no account, and so no limits
local time = now_seconds()

-- Rows under way have one call held each, and need as many more as this one. Those are reckoned at the mean bill of the
-- batch's calls and a part more, and at the bound before there is one.
local DEARER = 1.25
local further, of_others = 0, 0

local function reckon_row(account)
  local settled, held, settled_calls = amount_of(account[2]), amount_of(account[3]), tonumber(account[6] or 0) or 0
  if row_calls and settled and held and bound > 0 then
    local mean = settled_calls > 0 and math.min(bound, DEARER * settled / settled_calls) or bound
    further = (row_calls - 1) * bound
    of_others = math.floor(held / bound * (row_calls - 1) * mean)
  end
end

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
    redis.call('ZADD', tenant ~= '' and TENANT_LEASES or BUDGET_LEASES, seconds(time + lease_seconds), id)
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
    redis.call('HMGET', batch_key(batch), 'opened', 'settled', 'held', 'max_nano_usd', 'budget_share', 'calls')
  if not account[1] then
    return 'batch_closed'
  end
  reckon_row(account)
  local settled, held = amount_of(account[2]), amount_of(account[3])
  local most, share = account[4] and amount_of(account[4]), account[5] and amount_of(account[5])
  if not settled or not held or most == nil or share == nil then
    return 'damaged'
  end
  if most and settled + bound + further > most then
    return 'batch_limit', true, most
  end
  local is_busy = most and settled + held + bound + further + of_others > most
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

-- True of a call in a lane that leaves too little of a day to calls that are not held as long.
local function leaves_too_little(limit, settled, held)
  local is_of_day = lane_share and limit.period == 'daily'
  return is_of_day and held > 0 and held + bound > lane_share * (limit.amount - settled)
end

local exhausted, busy, tenant_limit, tenant_busy
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
      if limit.is_of_tenant then
        tenant_limit = limit -- the month's ends later
      elseif not exhausted or limit.ends_at > exhausted.ends_at then
        exhausted = limit
      end
    elseif
      settled + held + bound + (held > 0 and further + of_others or 0) > limit.amount or leaves_too_little(limit, settled, held)
    then
      if limit.is_of_tenant then
        tenant_busy = tenant_busy or limit
      else
        busy = busy or limit
      end
    end
  end
end

local blocking = exhausted or tenant_limit or tenant_busy or busy
if blocking then -- the tenant's before others' holds, for which a thread waits
  local verdict = exhausted and 'exhausted' or tenant_limit and 'tenant_limit' or tenant_busy and 'tenant_busy' or 'busy'
  local wait = (exhausted or tenant_limit) and seconds(blocking.ends_at - time) or '0'
  return { verdict, wait, blocking.scope, blocking.period, whole(blocking.amount) }
end
if id == '' then
  return { 'held', '0', '', '', is_limited }
end
if call.tenant then
  redis.call('SADD', TENANTS, call.tenant)
end
if call.tenant and call.rate ~= '' then
  -- Its turn in the tenant's rate (GCRA). Refused calls come back one by one, at that rate, as long as that is soon; those
  -- beyond come back together and late.
  local per_second, at_once = string.match(call.rate, '^(%S+) (%S+)$')
  per_second, at_once = tonumber(per_second), tonumber(at_once)
  if not (per_second and at_once and per_second > 0) then
    return damaged(BUDGET_LIMITS)
  end
  local key, now, between = TENANT_RATE .. call.tenant, time * 1e6, 1e6 / per_second
  local held = redis.pcall('HMGET', key, 'requests_at', 'come_back_at')
  local requests_at, come_back_at = tonumber(held[1] or 0), tonumber(held[2] or 0)
  if not (requests_at and come_back_at) or held.err then -- damaged: it begins anew
    redis.call('DEL', key)
    requests_at, come_back_at = 0, 0
  end
  local due_at = requests_at - (at_once - 1) * between
  local is_due = due_at <= now
  come_back_at = math.max(come_back_at, due_at)
  local wait = math.min(come_back_at - now, MOST_SECONDS_OF_TURNS * 1e6)
  if is_due then
    redis.call('HSET', key, 'requests_at', whole(math.max(requests_at, now) + between))
  elseif come_back_at - now <= MOST_SECONDS_OF_TURNS * 1e6 then
    redis.call('HSET', key, 'come_back_at', whole(come_back_at + between))
  end
  redis.call('EXPIRE', key, SECONDS_OF_OWN_RATE)
  if not is_due then
    return { 'tenant_rate', seconds(wait / 1e6), 'tenant:' .. call.tenant, '', '0' }
  end
end

redis.call('ZADD', leases_of(call), seconds(time + lease_seconds), id) -- first, as it fails if the leases are damaged
local held_in = #call.limits == 0 and (call.tenant and '00000000' or '000000') or ''
for _, limit in ipairs(call.limits) do
  held_in = held_in .. (limit.amount and '1' or '0')
  if limit.amount and increment(limit.key, 'held', bound) == bound then -- nothing else is: it may be a new one
    redis.call('EXPIREAT', limit.key, whole(limit.ends_at + SECONDS_AFTER_PERIOD))
  end
end
if call.tenant then
  held_in = held_in .. ' ' .. call.tenant
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
