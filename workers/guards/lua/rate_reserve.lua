#!lua flags=allow-oom
-- Reserves a call's turn: a slot for its request, and the tokens it may use. It works in a full Redis: the hash is small.
-- Keys: the model's rate.
-- Arguments: time between two requests, 0 without a limit; requests that may be sent at once; time per token, 0 without
--   a limit; tokens the call may use, 0 where they are reserved already; the longest wait.
-- Every time is in microseconds, those stored of Redis's own clock; the time per token has a fraction.
-- Reply: {1 if reserved, time until the call may be sent, what it waits for: requests, tokens, retry_after, account or
--   '', 1 while the gate's closings grow, now}. Where the wait would exceed the longest, nothing is reserved.
-- A repetition reserves another turn, which is lost: the limit holds.
--
-- The hash has these fields:
--   requests_at        when the next request is due if none may be sent ahead of its time (GCRA's arrival time)
--   tokens_at          when the tokens reserved up to now have passed, at the model's pace
--   gate_until, gate_reason   up to when no call is sent, and why: retry_after or account
--   gate_by            which closing that was
--   retry_after, account      how long the next closing of that reason lasts, after one and before a success
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

local slot, reason = now, ''
if gate_until > slot then
  slot, reason = gate_until, held[4]
end
if interval > 0 and requests_at - (burst - 1) * interval > slot then
  slot, reason = requests_at - (burst - 1) * interval, 'requests'
end
if is_paced and tokens_at > slot then
  slot, reason = tokens_at, 'tokens'
end

local wait = math.ceil(slot - now)
if wait > longest_wait then
  return { 0, wait, reason, is_growing, now }
end
if interval > 0 then
  redis.call('HSET', rate, 'requests_at', string.format('%.0f', math.max(requests_at, slot) + interval))
end
if is_paced then
  redis.call('HSET', rate, 'tokens_at', string.format('%.0f', slot + tokens * per_token))
end
return { 1, wait, reason, is_growing, now }
