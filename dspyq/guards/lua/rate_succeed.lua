#!lua flags=allow-oom
-- Resets the closings of a model's gate to their default, and ends the row of refusals: a call succeeded.
-- Keys:
--   rate  RATE: of the model (its fields are described in rate_reserve.lua)
-- Reply: 1, or 0 while the gate is closed: a call that succeeds then was sent before.
local now = now_microseconds()
if tonumber(redis.call('HGET', rate, 'gate_until') or 0) > now then
  return 0
end
redis.call('HDEL', rate, 'retry_after', 'account', 'retry_after_row', 'account_row', 'refused_row')
return 1
