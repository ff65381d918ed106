#!lua flags=no-writes
-- Reads the circuit breaker of a model, with the right to read alone. A damaged one is read as a new one, which is closed.
-- Libraries: guards/breaker_hash.
-- Keys:
--   breaker  BREAKER: of the model
-- Reply: as in the library.
local held = read_breaker(breaker)
local state, epoch, _, failures, _, till, _, probe, probe_until, openings, _, _, row, _, round, outages = unpack(held)
return breaker_reply(now_microseconds(), state, epoch, failures, till, probe, probe_until, openings, row, round, outages)
