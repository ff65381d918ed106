#!lua flags=allow-oom
-- Reserves a call's turn: a slot for its request, and the tokens it may use. It works in a full Redis: the hash is small.
-- Keys:
--   rate                  RATE: of the model
--   account?              BATCH_ACCOUNT: for a call that is to keep within its batch's share
--   own?                  RATE: the batch's own, at this model
-- Arguments:
--   interval:number       time between two requests, 0 without a limit
--   burst:number          requests that may be sent at once
--   per_token:number      time per token, 0 without a limit
--   tokens:number         that the call may use, 0 where they are reserved already
--   longest_wait:number   for its turn
--   share_wait:number?    for a batch's call: the longest wait for its turn in the share
--   share_spread:number?  the time that later turns are spread over
--   joined:number?        how many others wait for the call's answer
-- Every time is in microseconds, those stored of Redis's own clock; the time per token has a fraction.
-- Reply: {what is reserved, time until the call may be sent, what it waits for: share, requests, tokens, retry_after,
--   account or '', 1 while a success is to be reported, now, 1 where the rate was damaged}. Reserved is 1: its turn; 0: nothing, where the wait would
--   exceed the longest; 2: only its turn in the share: no other call may wait behind a call that its batch may not send
--   yet, so the call reserves again, without the batch, once that has come.
-- A repetition reserves another turn, which is lost: the limit holds.
--
-- The hash has these fields:
--   requests_at        when the next request is due if none may be sent ahead of its time (GCRA's arrival time)
--   tokens_at          when the tokens reserved up to now have passed, at the model's pace
--   gate_until, gate_reason   up to when no call is sent, and why: retry_after or account
--   gate_by            which closing that was
--   retry_after, account      how long the next closing of that reason lasts, after one and before a success
--   retry_after_row, account_row   when the first closing since a success was
--   refused_row        when the first 429 since a success was
--   refused            the different questions that a 429 refused last, up to four: '<time>:<hash>', the latest first
-- A batch's has requests_at and tokens_at too, at its share of the pace, and come_back_at: when the next of those comes
-- back that were refused for a wait too long.
--
-- A damaged rate, which is no hash or has a field that is no time, begins anew.

local now = now_microseconds()
local LATEST = now + 30 * 86400 * 1000000
local is_damaged = 0

local function read(key, times, ...)
  local held = redis.pcall('HMGET', key, ...)
  local is_good = not held.err
  for index = 1, is_good and times or 0 do
    local time = tonumber(held[index] or 0)
    is_good = is_good and time and time >= 0 and time < LATEST
  end
  if is_good then
    return held
  end
  redis.call('DEL', key)
  is_damaged = 1
  return {}
end

local held = read(rate, 5, 'requests_at', 'tokens_at', 'gate_until', 'retry_after', 'account', 'gate_reason',
  'refused_row')
local requests_at, tokens_at = tonumber(held[1] or 0), tonumber(held[2] or 0)
local gate_until = tonumber(held[3] or 0)
local is_paced = per_token > 0 and tokens > 0
local is_growing = (held[4] or held[5] or held[7]) and 1 or 0

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

-- The turn of a batch's call in its share, if there is one; a call that others wait for too needs none.
local share = account and tonumber(redis.call('HGET', account, 'rate_share'))
local is_limited = interval > 0 or is_paced
if share and (not (share > 0 and share <= 1) or not is_limited or joined > 0) then
  share = nil
end
local own_slot = now
local own_requests_at, own_tokens_at
if share then
  local paces = read(own, 3, 'requests_at', 'tokens_at', 'come_back_at')
  own_requests_at, own_tokens_at = tonumber(paces[1] or 0), tonumber(paces[2] or 0)
  local own_interval, own_tokens = interval / share, is_paced and tokens * per_token / share or 0
  own_slot = due(own_requests_at, own_tokens_at, own_interval, math.max(1, math.floor(burst * share)))
  if own_slot - now > share_wait then
    local come_back_at = math.max(tonumber(paces[3] or 0), own_slot)
    if come_back_at - now > share_spread then
      return { 0, share_spread, 'share', is_growing, now, is_damaged }
    end
    redis.call('HSET', own, 'come_back_at', whole(come_back_at + math.max(own_interval, own_tokens)))
    redis.call('EXPIRE', own, SECONDS_OF_OWN_RATE)
    return { 0, math.ceil(come_back_at - now), 'share', is_growing, now, is_damaged }
  end
  own_requests_at, own_tokens_at = math.max(own_requests_at, own_slot) + own_interval, own_slot + own_tokens
end

-- Takes the turn in the share.
local function take_own()
  redis.call('HSET', own, 'requests_at', whole(own_requests_at))
  if is_paced then
    redis.call('HSET', own, 'tokens_at', whole(own_tokens_at))
  end
  redis.call('EXPIRE', own, SECONDS_OF_OWN_RATE)
end
if own_slot > now then
  take_own()
  return { 2, math.ceil(own_slot - now), 'share', is_growing, now, is_damaged }
end

local slot, reason = due(requests_at, tokens_at, interval, burst)
if gate_until > slot then
  slot, reason = gate_until, held[6] or 'retry_after'
end

local wait = math.ceil(slot - now)
if wait > longest_wait then
  return { 0, wait, reason, is_growing, now, is_damaged }
end
if share then
  take_own()
end
if interval > 0 then
  redis.call('HSET', rate, 'requests_at', whole(math.max(requests_at, slot) + interval))
end
if is_paced then
  redis.call('HSET', rate, 'tokens_at', whole(slot + tokens * per_token))
end
return { 1, wait, reason, is_growing, now, is_damaged }
