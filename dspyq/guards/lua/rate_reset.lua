#!lua flags=allow-oom
-- Opens a model's gate, and has its closings start from their default again. What is reserved stays.
-- Keys: the model's rate (its fields are told in rate_reserve.lua).
-- Arguments: none.
-- Reply: 1 if it was closed, else 0.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local was_closed = tonumber(redis.call('HGET', KEYS[1], 'gate_until') or 0) > now
redis.call('HDEL', KEYS[1], 'gate_until', 'gate_reason', 'gate_by', 'retry_after', 'account')
return was_closed and 1 or 0
