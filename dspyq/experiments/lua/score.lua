-- Adds an answer's scores, each once, and counts those that it does not have.
-- Libraries: experiments/shadows.
-- Arguments:
--   id           of the task that answered
--   program      its name
--   is_complete  '1' where no other score of it will come
--   scores...    pairs of name and score, in whole millionths of its range, or the reason why there is none
-- Of a shadow run it adds the differences from the control's scores.
-- Reply: the number of scores added; -1 where the answer is of no experiment, or too old.
local answer = EXPERIMENT_ANSWER .. id
local waited = is_complete == '1' and end_waiting(program, id)
local exposure = redis.call('HGET', answer, 'exposure')
local exposed = split(exposure or '')
local counting = exposure and counting_of(program, exposed[1])
if not counting then
  if waited then
    count_unscored(program, waited, 'late', '*')
  end
  return -1
end
if arm_of_shadow(exposed) then
  return pair_scores(counting, program, id, exposed, scores, is_complete == '1')
end
local added = 0
for index = 1, #scores, 2 do
  local name, score = scores[index], tonumber(scores[index + 1])
  if redis.call('HSETNX', answer, (score and 's:' or 'none:') .. name, score and whole(score) or 1) == 1 then
    if score then
      local part = math.floor(score / 100)
      add_both(counting.base .. exposed[2] .. ':score:' .. name, exposed[3], exposed[4], { 1, score, part * part }, 3)
      note_judged(counting, 's', id, name, 1, score)
      local held = redis.call('HGETALL', answer)
      for at = 1, #held, 2 do
        local unit = string.match(held[at], '^w:(%d+)$')
        if unit then
          count_delivered(counting, exposed[2], unit, exposed[4], name, tonumber(held[at + 1]), score)
        end
      end
      added = added + 1
    else
      count_unscored(program, exposed, scores[index + 1], name)
    end
  end
end
return added
