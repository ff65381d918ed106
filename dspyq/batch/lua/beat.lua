#!lua flags=allow-oom
-- Records that a batch's runner is alive, with its progress.
-- Keys:
--   batch     BATCH: its facts
--   list      BATCHES: all of them
--   claims    BATCH: what it has claimed
-- Arguments:
--   id        of the batch
--   is_first  '1' where a run begins, which ends an earlier request to cancel, else ''
--   facts...  pairs of field and value
-- Reply: the requested state: run, pause or cancel.
local now = string.format('%.3f', now_seconds())
redis.call('HSETNX', batch, 'started_at', now)
redis.call('HSET', batch, 'seen_at', now, unpack(facts))
if is_first == '1' and redis.call('HGET', batch, 'wanted') == 'cancel' then
  redis.call('HDEL', batch, 'wanted')
end
redis.call('ZADD', list, 'NX', now, id)
redis.call('ZREMRANGEBYSCORE', list, '-inf', now - SECONDS_OF_BATCH)
redis.call('EXPIRE', batch, SECONDS_OF_BATCH)
redis.call('EXPIRE', claims, SECONDS_OF_BATCH)
return redis.call('HGET', batch, 'wanted') or 'run'
