#!lua flags=allow-oom
-- Opens a model's gate, and resets its closings to their default. Reservations stay, except those of a damaged rate.
-- Keys:
--   rate  RATE: of the model (its fields are described in rate_reserve.lua)
-- Reply: 1 if it was closed, else 0.
local now = now_microseconds()
local gate_until = redis.pcall('HGET', rate, 'gate_until') or 0
gate_until = type(gate_until) ~= 'table' and tonumber(gate_until)
if not gate_until then
  redis.call('DEL', rate)
  return 1
end
local was_closed = gate_until > now
redis.call('HDEL', rate, 'gate_until', 'gate_reason', 'gate_by', 'retry_after', 'account', 'refused', 'refused_row')
return was_closed and 1 or 0
