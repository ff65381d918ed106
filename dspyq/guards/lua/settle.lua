#!lua flags=allow-oom
-- Charges a call its cost, frees the rest of its hold, and writes it into the books. A repetition changes nothing.
-- Libraries: guards/call_limits.
-- Arguments:
--   id                        of the call
--   bill:number               nano-dollars, '' where it is unknown: then its bound is charged
--   prompt_tokens:number      that were sent
--   completion_tokens:number  that were generated
--   only_held?                '1' where a call that has no hold is not charged: at any later repetition nothing is changed
-- Reply: {what was found, charged nano-dollars, held nano-dollars}, then for each percentage of a limit that it crossed
--   scope, period, percentage, settled nano-dollars, limit in nano-dollars. Found was one of
--   held     its hold
--   expired  that its lease had run out and its bound was charged: the bill replaced that
--   nothing  no hold, as where Redis lost its data: it was charged to the current day and month
--   settled  that it is settled: nothing was changed
--   unknown  no hold, and only_held: it was settled long ago, or its hold was lost. It is settled from now on
--   clock    no hold, and none of the caller's periods fits Redis's clock: nothing was changed
local PERCENTAGES = { 50, 80, 100 }

-- Warns of a limit once for each percentage; once more where the limit was changed.
local function crossed(limit, reply)
  if limit.is_damaged or not limit.amount or limit.amount == 0 then
    return
  end
  local account = redis.pcall('HMGET', limit.key, 'settled', 'warned')
  local settled = not account.err and amount_of(account[1])
  if not settled then -- damaged, and it is counted
    return
  end
  local percentage, of = string.match(account[2] or '', '^(%d+) (%d+)$')
  local warned = of == whole(limit.amount) and tonumber(percentage) or 0
  local highest = warned
  for _, share in ipairs(PERCENTAGES) do
    if share > warned and settled >= limit.amount / 100 * share then
      highest = share
      for _, part in ipairs({ limit.scope, limit.period, tostring(share), whole(settled), whole(limit.amount) }) do
        reply[#reply + 1] = part
      end
      count('warnings')
    end
  end
  if highest > warned then
    redis.call('HSET', limit.key, 'warned', highest .. ' ' .. whole(limit.amount))
  end
end

local held = read_hold(id)
if held and held.state == 'settled' then
  return { 'settled', '0', '0' }
end
if not held and only_held == '1' then
  mark_settled(id)
  return { 'unknown', '0', '0' }
end
local call = read_call()
local found, bound = 'nothing', 0
if held then
  found, bound = held.state == 'held' and 'held' or 'expired', held.bound
elseif not choose_periods(call, now_seconds()) then
  return { 'clock', '0', '0' }
end
local amount = bill or bound
local counters = { prompt_tokens = prompt_tokens, completion_tokens = completion_tokens }

if found == 'held' then
  move(held, amount, -bound)
elseif found == 'expired' then
  move(held, amount - bound, 0)
  count('settled_after_expiry')
else
  held = call
  move(held, amount, 0)
  for _, limit in ipairs(call.limits) do
    redis.call('EXPIREAT', limit.key, whole(limit.ends_at + SECONDS_AFTER_PERIOD))
  end
  count('settled_without_hold')
end

if found ~= 'expired' then
  counters.calls = 1
  if bill then
    counters.billed_nano_usd = bill
  else
    counters.unknown_calls, counters.unknown_nano_usd = 1, bound
  end
elseif bill then
  counters.billed_nano_usd, counters.unknown_calls, counters.unknown_nano_usd = bill, -1, -bound
end
book(held, counters)
if held.batch then
  note(held.batch, id, bill and '=' or '~', amount, prompt_tokens, completion_tokens)
end
if found ~= 'nothing' and amount > bound then
  count('bills_above_hold')
end

mark_settled(id)
redis.call('ZREM', leases_of(held), id)

local reply = { found, whole(amount), whole(bound) }
if call.tenant == held.tenant then -- else these are not the limits that it was held in; the next call warns
  name_accounts(call.limits, held)
  for _, limit in ipairs(call.limits) do
    crossed(limit, reply)
  end
end
return reply
