#!lua
-- Says what a batch may spend, in place of what was said before.
-- Keys: its account (its fields are told in dspyq/guards/lua/accounts.lua).
-- Arguments: seconds to keep it; nano-dollars that it is known to have spent: Redis may have lost its data since; then
--   its limits, '' for none: nano-dollars in all, its share of the day's budget, its share of each model's rate.
-- Reply: 1.
local account, spent = KEYS[1], tonumber(ARGV[2])

if spent > tonumber(redis.call('HGET', account, 'settled') or 0) then
  redis.call('HSET', account, 'settled', ARGV[2])
end
for index, name in ipairs({ 'max_nano_usd', 'budget_share', 'rate_share' }) do
  if ARGV[index + 2] == '' then
    redis.call('HDEL', account, name)
  else
    redis.call('HSET', account, name, ARGV[index + 2])
  end
end
redis.call('HSET', account, 'opened', 1)
redis.call('EXPIRE', account, ARGV[1])
return 1
