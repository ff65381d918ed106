#!lua flags=allow-oom
-- Has the closings of a model's gate start from their default again: a call succeeded.
-- Keys: the model's rate (its fields are told in rate_reserve.lua).
-- Arguments: none.
-- Reply: 1, or 0 while the gate is closed: a call that succeeds then was sent before.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
if tonumber(redis.call('HGET', KEYS[1], 'gate_until') or 0) > now then
  return 0
end
redis.call('HDEL', KEYS[1], 'retry_after', 'account')
return 1
