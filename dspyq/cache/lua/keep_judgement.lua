-- Keeps a judgement that an experiment has counted with its call, in place of an earlier one of its name.
-- Keys:
--   judgements      JUDGEMENTS: of the call
-- Arguments:
--   name            of the judgement
--   value:number    in whole millionths
--   comment         as it is stored, or ''
--   tenant          of the caller, '' for none; it is kept beside the comment with the hour, for both to be forgotten by
--   seconds:number  for which a judgement is remembered
-- Reply: 1.
redis.call('HSET', judgements, 'value:' .. name, whole(value))
redis.call('HDEL', judgements, 'comment:' .. name, 'given:' .. name)
if comment ~= '' then
  local given = string.format('%d', math.floor(now_seconds() / 3600)) .. ' ' .. tenant
  redis.call('HSET', judgements, 'comment:' .. name, comment, 'given:' .. name, given)
end
return redis.call('EXPIRE', judgements, seconds)
