#!lua flags=allow-oom
-- Takes or gives back the difference between the tokens a call used and those reserved for it.
-- Keys: the model's rate (its fields are told in rate_reserve.lua); a mark of this correction.
-- Arguments: microseconds per token; tokens used, less those reserved; milliseconds the mark is kept.
-- Reply: 1, or 0 where this correction was made before.
local rate, mark = KEYS[1], KEYS[2]
local per_token, difference = tonumber(ARGV[1]), tonumber(ARGV[2])

if not redis.call('SET', mark, 1, 'NX', 'PX', ARGV[3]) then
  return 0
end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
-- A pace that has come to its end stands at now: tokens used beyond the estimate are waited for all the same.
local tokens_at = math.max(tonumber(redis.call('HGET', rate, 'tokens_at') or 0), difference > 0 and now or 0)
redis.call('HSET', rate, 'tokens_at', string.format('%.0f', math.max(0, tokens_at + difference * per_token)))
return 1
