#!lua flags=allow-oom
-- Takes or gives back the difference between the tokens a call used and those reserved for it.
-- Keys:
--   rate               RATE: of the model (fields: see rate_reserve.lua)
--   mark               RATE: of this correction
--   account?           BATCH_ACCOUNT: for a batch's call
--   own?               RATE: the batch's own, at this model
-- Arguments:
--   per_token:number   microseconds
--   difference:number  tokens used, less those reserved
-- Reply: 1, or 0 where this correction was made before.

if not redis.call('SET', mark, 1, 'NX', 'EX', SECONDS_CORRECTED) then
  return 0
end
local now = now_microseconds()

local function correct(key, microseconds)
  -- A pace that has come to its end stands at now: tokens used beyond the estimate are waited for all the same.
  local tokens_at = math.max(tonumber(redis.call('HGET', key, 'tokens_at') or 0), difference > 0 and now or 0)
  redis.call('HSET', key, 'tokens_at', whole(math.max(0, tokens_at + difference * microseconds)))
end

correct(rate, per_token)
local share = account and tonumber(redis.call('HGET', account, 'rate_share'))
if share and redis.call('EXISTS', own) == 1 then
  correct(own, per_token / share)
end
return 1
