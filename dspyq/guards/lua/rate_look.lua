-- Says whether a model's gate is closed.
-- Keys: the model's rate (its fields are told in rate_reserve.lua).
-- Arguments: none.
-- Reply: {microseconds it stays closed, 0 where it is open; retry_after, account or ''; 1 while its closings grow}
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local held = redis.call('HMGET', KEYS[1], 'gate_until', 'gate_reason', 'retry_after', 'account')
local left = math.max(0, tonumber(held[1] or 0) - now)
return { left, left > 0 and held[2] or '', (held[3] or held[4]) and 1 or 0 }
