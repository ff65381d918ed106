#!lua flags=no-writes
-- Reads a model's gate; for a call that has waited for its turn, also if its variant was killed meanwhile.
-- Keys:
--   rate  RATE: of the model (its fields are described in rate_reserve.lua)
-- Arguments:
--   queue?  the variant's, where its call has waited and is let go by this script
-- Reply: {microseconds it stays closed, 0 where it is open; retry_after, account or ''; 1 while a success is to be
--   reported; 1 where the variant is killed}
local now = now_microseconds()
local held = redis.call('HMGET', rate, 'gate_until', 'gate_reason', 'retry_after', 'account', 'refused_row')
local left = math.max(0, tonumber(held[1] or 0) - now)
return { left, left > 0 and held[2] or '', (held[3] or held[4] or held[5]) and 1 or 0,
  queue ~= '' and redis.call('SISMEMBER', KILLED_ARMS, queue) or 0 }
