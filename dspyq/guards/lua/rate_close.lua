#!lua flags=allow-oom
-- Closes a model's gate, for everyone.
-- Keys: the model's rate (its fields are told in rate_reserve.lua).
-- Arguments: id of this closing; reason, retry_after or account; how long, or '' for the default; the default; the
--   longest. Every time is in microseconds.
-- The default doubles with each closing until a call succeeds. Calls that fail while the gate is closed were sent before:
-- they may lengthen the closing, and double nothing. So a repetition changes nothing.
-- Reply: {microseconds until it opens, 1 if this closed an open gate}
local rate, id, reason = KEYS[1], ARGV[1], ARGV[2]
local stated, default, longest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local held = redis.call('HMGET', rate, 'gate_until', 'gate_by', 'gate_reason', reason)
local gate_until = tonumber(held[1] or 0)
local is_closed = gate_until > now
if held[2] == id then
  return { math.max(0, gate_until - now), 1 }
end

local function whole(number)
  return string.format('%.0f', number)
end

local pause = stated
if not stated then
  if is_closed and held[3] == reason then
    return { gate_until - now, 0 }
  end
  pause = tonumber(held[4]) or default
  redis.call('HSET', rate, reason, whole(math.min(pause * 2, longest)))
end
pause = math.min(pause, longest)
if now + pause > gate_until then
  gate_until = now + pause
  redis.call('HSET', rate, 'gate_until', whole(gate_until), 'gate_reason', reason, 'gate_by', id)
end
return { gate_until - now, is_closed and 0 or 1 }
