#!lua flags=allow-oom
-- Says that a batch's runner lives and how far it is.
-- Keys: the batch; the list of batches; the claims of the batch.
-- Arguments: batch id; seconds to keep all of it; '1' where a run begins, which ends an earlier wish to cancel; then
--   pairs of field and value.
-- Reply: what is wanted of it: run, pause or cancel.
local batch, list, claims = KEYS[1], KEYS[2], KEYS[3]
local id, keep, is_first = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'

local time = redis.call('TIME')
local now = string.format('%.3f', time[1] + time[2] / 1e6)
redis.call('HSETNX', batch, 'started_at', now)
redis.call('HSET', batch, 'seen_at', now, unpack(ARGV, 4))
if is_first and redis.call('HGET', batch, 'wanted') == 'cancel' then
  redis.call('HDEL', batch, 'wanted')
end
redis.call('ZADD', list, 'NX', now, id)
redis.call('ZREMRANGEBYSCORE', list, '-inf', now - keep)
redis.call('EXPIRE', batch, keep)
redis.call('EXPIRE', claims, keep)
return redis.call('HGET', batch, 'wanted') or 'run'
