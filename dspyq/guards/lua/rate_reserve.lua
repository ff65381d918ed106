#!lua flags=allow-oom
-- Reserves a call's turn: a slot for its request, and the tokens it may use. It works in a full Redis: the hash is small.
-- Keys: the model's rate; for a call that is to keep within its batch's share also the batch's account, the batch's own
--   rate at this model, and the alias of the call's question.
-- Arguments: time between two requests, 0 without a limit; requests that may be sent at once; time per token, 0 without
--   a limit; tokens the call may use, 0 where they are reserved already; the longest wait; for a batch's call also the
--   longest wait for its turn in the share, and the time that later turns are spread over.
-- Every time is in microseconds, those stored of Redis's own clock; the time per token has a fraction.
-- Reply: {what is reserved, time until the call may be sent, what it waits for: share, requests, tokens, retry_after,
--   account or '', 1 while the gate's closings grow, now}. Reserved is 1: its turn; 0: nothing, where the wait would
--   exceed the longest; 2: its turn in the share, and only that: nobody else is to wait behind what a batch may not send
--   yet, so the call asks again, without the batch, once that has come.
-- A repetition reserves another turn, which is lost: the limit holds.
--
-- The hash has these fields:
--   requests_at        when the next request is due if none may be sent ahead of its time (GCRA's arrival time)
--   tokens_at          when the tokens reserved up to now have passed, at the model's pace
--   gate_until, gate_reason   up to when no call is sent, and why: retry_after or account
--   gate_by            which closing that was
--   retry_after, account      how long the next closing of that reason lasts, after one and before a success
-- A batch's has requests_at and tokens_at too, at its share of the pace, and come_back_at: when the next of those comes
-- back that were refused for a wait too long.
local KEPT_MILLISECONDS = 86400000
local rate = KEYS[1]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local per_token, tokens, longest_wait = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local held = redis.call('HMGET', rate, 'requests_at', 'tokens_at', 'gate_until', 'gate_reason', 'retry_after', 'account')
local requests_at, tokens_at = tonumber(held[1] or 0), tonumber(held[2] or 0)
local gate_until = tonumber(held[3] or 0)
local is_paced = per_token > 0 and tokens > 0
local is_growing = (held[5] or held[6]) and 1 or 0

-- The time from which calls at a pace may be sent, and what that waits for.
local function due(of_requests, of_tokens, between, at_once)
  local at, what = now, ''
  if between > 0 and of_requests - (at_once - 1) * between > at then
    at, what = of_requests - (at_once - 1) * between, 'requests'
  end
  if is_paced and of_tokens > at then
    at, what = of_tokens, 'tokens'
  end
  return at, what
end

-- The turn of a batch's call in its share, where there is one; a call that others wait for too goes without.
local share = KEYS[2] and tonumber(redis.call('HGET', KEYS[2], 'rate_share'))
local is_limited = interval > 0 or is_paced
if share and (not is_limited or tonumber(redis.call('HGET', KEYS[4], 'joined') or 0) > 0) then
  share = nil
end
local own, own_slot = KEYS[3], now
local own_requests_at, own_tokens_at
if share then
  local paces = redis.call('HMGET', own, 'requests_at', 'tokens_at', 'come_back_at')
  own_requests_at, own_tokens_at = tonumber(paces[1] or 0), tonumber(paces[2] or 0)
  local own_interval, own_tokens = interval / share, is_paced and tokens * per_token / share or 0
  own_slot = due(own_requests_at, own_tokens_at, own_interval, math.max(1, math.floor(burst * share)))
  if own_slot - now > tonumber(ARGV[6]) then
    local come_back_at = math.max(tonumber(paces[3] or 0), own_slot)
    if come_back_at - now > tonumber(ARGV[7]) then
      return { 0, tonumber(ARGV[7]), 'share', is_growing, now }
    end
    redis.call('HSET', own, 'come_back_at', string.format('%.0f', come_back_at + math.max(own_interval, own_tokens)))
    redis.call('PEXPIRE', own, KEPT_MILLISECONDS)
    return { 0, math.ceil(come_back_at - now), 'share', is_growing, now }
  end
  own_requests_at, own_tokens_at = math.max(own_requests_at, own_slot) + own_interval, own_slot + own_tokens
end

-- Takes the turn in the share.
local function take_own()
  redis.call('HSET', own, 'requests_at', string.format('%.0f', own_requests_at))
  if is_paced then
    redis.call('HSET', own, 'tokens_at', string.format('%.0f', own_tokens_at))
  end
  redis.call('PEXPIRE', own, KEPT_MILLISECONDS)
end
if own_slot > now then
  take_own()
  return { 2, math.ceil(own_slot - now), 'share', is_growing, now }
end

local slot, reason = due(requests_at, tokens_at, interval, burst)
if gate_until > slot then
  slot, reason = gate_until, held[4]
end

local wait = math.ceil(slot - now)
if wait > longest_wait then
  return { 0, wait, reason, is_growing, now }
end
if share then
  take_own()
end
if interval > 0 then
  redis.call('HSET', rate, 'requests_at', string.format('%.0f', math.max(requests_at, slot) + interval))
end
if is_paced then
  redis.call('HSET', rate, 'tokens_at', string.format('%.0f', slot + tokens * per_token))
end
return { 1, wait, reason, is_growing, now }
