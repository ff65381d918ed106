#!lua
-- Sets a batch's limits, in place of earlier ones.
-- Keys:
--   account       BATCH_ACCOUNT: its own (its fields are described in dspyq/guards/lua/accounts.lua)
-- Arguments:
--   spent:number  nano-dollars that it is known to have spent: Redis may have lost its data since
--   max_nano_usd  its limit in all, '' for none
--   budget_share  its share of the day's budget, '' for none
--   rate_share    its share of each model's rate, '' for none
--   lane          how its model calls are made, '' for live
-- Reply: 1.

if spent > tonumber(redis.call('HGET', account, 'settled') or 0) then
  redis.call('HSET', account, 'settled', whole(spent))
end
if (redis.call('HGET', account, 'max_nano_usd') or '') ~= max_nano_usd then
  redis.call('HDEL', account, 'is_in_rest') -- there may be money for its lane again
end
local stated = { max_nano_usd = max_nano_usd, budget_share = budget_share, rate_share = rate_share, lane = lane }
for name, limit in pairs(stated) do
  if limit == '' then
    redis.call('HDEL', account, name)
  else
    redis.call('HSET', account, name, limit)
  end
end
redis.call('HSET', account, 'opened', 1)
redis.call('EXPIRE', account, SECONDS_OF_BOOKS)
return 1
