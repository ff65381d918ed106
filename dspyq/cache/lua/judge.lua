-- Counts a caller's judgement of an answer in its variant's statistics, once for each call and name.
-- Keys:
--   judgements        JUDGEMENTS: of the call
-- Arguments:
--   queue             the variant's
--   name              of the judgement
--   value:number      in whole millionths
--   comment           as it is stored, or ''
--   tenant            of the caller, '' for none; as of keep_judgement
--   seconds:number    for which a judgement is remembered
--   most_names:number of judgements that a variant's statistics hold
-- Reply: new; same or kept where one was given before, of this value or of another; full where the variant has as many names.
local before = tonumber(redis.call('HGET', judgements, 'value:' .. name) or nil)
if before then
  return before == value and 'same' or 'kept'
end
local statistics, counter = STATISTICS .. queue, 'feedback_count:' .. name
if redis.call('HEXISTS', statistics, counter) == 0 then
  if tonumber(redis.call('HGET', statistics, 'feedback_names') or 0) >= most_names then
    return 'full'
  end
  redis.call('HINCRBY', statistics, 'feedback_names', 1)
end
redis.call('HINCRBY', statistics, counter, 1)
redis.call('HINCRBY', statistics, 'feedback_sum:' .. name, whole(value))
redis.call('HSET', judgements, 'value:' .. name, whole(value))
if comment ~= '' then
  local given = string.format('%d', math.floor(now_seconds() / 3600)) .. ' ' .. tenant
  redis.call('HSET', judgements, 'comment:' .. name, comment, 'given:' .. name, given)
end
redis.call('EXPIRE', judgements, seconds)
return 'new'
