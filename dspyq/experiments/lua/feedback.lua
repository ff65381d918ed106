-- Takes a caller's judgement of an answer, once.
-- Libraries: experiments/sums.
-- Arguments:
--   program            its name
--   exposure           that the judgement is of
--   question           the name of the question
--   name               of the judgement
--   said               a random name of the call: of one call, judgements of a name are one
--   value:number       in whole millionths of its range
--   window_seconds     for which a judgement is remembered
--   replaces           '1' where a later judgement replaces an earlier one, else ''
-- Reply: new, same, replaced, kept, or closed where the experiment is no more.
local exposed = split(exposure)
local counting = counting_of(program, exposed[1])
if not counting then
  return 'closed'
end
local key = EXPERIMENT_SAID .. exposed[1] .. ':' .. said .. ':' .. name
local before = tonumber(redis.call('GET', key) or nil)
if before == value then
  return 'same'
end
if before and replaces ~= '1' then
  return 'kept'
end
redis.call('SET', key, whole(value), 'EX', window_seconds)
local part, part_before = math.floor(value / 100), math.floor((before or 0) / 100)
add_both(counting.base .. exposed[2] .. ':feedback:' .. name .. ':' .. exposed[6], exposed[3], exposed[4], {
  before and 0 or 1, value - (before or 0), part * part - part_before * part_before,
}, 3)
note_feedback(counting, exposed[2], question, name, before and 0 or 1, value - (before or 0))
return before and 'replaced' or 'new'
