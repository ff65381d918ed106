-- Remembers under a caller's Idempotency-Key which request it is of; the first one counts.
-- Keys:
--   known            SERVE_IDEMPOTENCY: of the key
-- Arguments:
--   fingerprint      of the request
--   call             the name of the call that it makes
--   seconds:number   how long it is remembered
-- Reply: the fingerprint and the call of the first request, the public id of its prediction, '' where that is not noted
--   yet, and 1 where this is the first.
local is_first = redis.call('HSETNX', known, 'fingerprint', fingerprint)
if is_first == 1 then
  redis.call('HSET', known, 'call', call)
  redis.call('EXPIRE', known, seconds)
end
local stored = redis.call('HMGET', known, 'fingerprint', 'call', 'prediction')
return { stored[1], stored[2], stored[3] or '', is_first }
