#!lua flags=allow-oom
-- Takes or gives back the difference between the tokens a call used and those reserved for it.
-- Keys: the model's rate (its fields are told in rate_reserve.lua); a mark of this correction; for a batch's call also the
--   batch's account, and its own rate at this model.
-- Arguments: microseconds per token; tokens used, less those reserved; milliseconds the mark is kept.
-- Reply: 1, or 0 where this correction was made before.
local rate, mark = KEYS[1], KEYS[2]
local per_token, difference = tonumber(ARGV[1]), tonumber(ARGV[2])

if not redis.call('SET', mark, 1, 'NX', 'PX', ARGV[3]) then
  return 0
end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function correct(key, microseconds)
  -- A pace that has come to its end stands at now: tokens used beyond the estimate are waited for all the same.
  local tokens_at = math.max(tonumber(redis.call('HGET', key, 'tokens_at') or 0), difference > 0 and now or 0)
  redis.call('HSET', key, 'tokens_at', string.format('%.0f', math.max(0, tokens_at + difference * microseconds)))
end

correct(rate, per_token)
local share = KEYS[3] and tonumber(redis.call('HGET', KEYS[3], 'rate_share'))
if share and redis.call('EXISTS', KEYS[4]) == 1 then
  correct(KEYS[4], per_token / share)
end
return 1
