#!lua flags=allow-oom
-- Notes that what is left of a batch's limit buys too few calls at once for its lane: rows that have not begun leave it.
-- Libraries: guards/accounts.
-- Arguments:
--   batch  the batch
-- Reply: the lane that it states, '' where it has no account or no limit of its own.
local account = batch_key(batch)
local stated = redis.call('HMGET', account, 'opened', 'max_nano_usd', 'lane')
if not stated[1] or not stated[2] then
  return ''
end
redis.call('HSET', account, 'is_in_rest', 1)
return stated[3] or ''
