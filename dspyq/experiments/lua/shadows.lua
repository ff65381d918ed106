-- Shared by the scripts on shadow runs.
-- Libraries: experiments/sums.
--
-- A shadow run's exposure has 'shadow:<arm>' in place of its arm, so that nothing of it is counted as the arm's; in
-- EXPERIMENT_ANSWER .. id it has the control's task, 'control', and the scores, cost and time of its answer beside it,
-- 'c:<score>'; of a pair scorer, whose number is a difference already, that is 0. In
-- EXPERIMENT_SUMS .. '<program>:<epoch>:'
--   shadow                      a hash, '<arm> <what came of it>' to a number
--   shadows                     those that wait for their scores: '<arm> <id>' by the time at which they are given up
--   shadow:<arm>:pair:<score>:q   by bucket of the question: pairs, and the sum of challenger - control in millionths of
--                               the range; of cost in nano-dollars, of time in ms
local function arm_of_shadow(exposed)
  return string.match(exposed[2], '^shadow:(.+)$')
end

local function count_shadow(counting, arm, what)
  if redis.call('HINCRBY', counting.base .. 'shadow', arm .. ' ' .. what, 1) == 1 then
    redis.call('EXPIRE', counting.base .. 'shadow', SECONDS_OF_EXPERIMENT)
  end
end

-- Ends a shadow run, once; true if it waited.
local function end_shadow(counting, arm, id, what)
  if redis.call('ZREM', counting.base .. 'shadows', arm .. ' ' .. id) == 0 then
    return false
  end
  count_shadow(counting, arm, what)
  return true
end

-- Adds the differences of a shadow run's cost and time from the control's, each once.
local function pair_amounts(counting, exposed, answer)
  for _, what in ipairs({ 'cost', 'time' }) do
    local amounts = redis.call('HMGET', answer, what, 'c:' .. what)
    local own, control = tonumber(amounts[1] or nil), tonumber(amounts[2] or nil)
    if own and control and redis.call('HSETNX', answer, 's:' .. what, 1) == 1 then
      add(counting.base .. exposed[2] .. ':pair:' .. what .. ':q', exposed[4], { 1, own - control })
    end
  end
end

-- Adds the differences of a shadow run's scores from the control's, each once, and ends it if no other score will come.
-- Reply: the number added.
local function pair_scores(counting, program, id, exposed, scores, is_complete)
  local answer, added = EXPERIMENT_ANSWER .. id, 0
  for index = 1, #scores, 2 do
    local name, score = scores[index], tonumber(scores[index + 1])
    if redis.call('HSETNX', answer, (score and 's:' or 'none:') .. name, 1) == 1 then
      local control = tonumber(redis.call('HGET', answer, 'c:' .. name))
      if score and control then
        add(counting.base .. exposed[2] .. ':pair:' .. name .. ':q', exposed[4], { 1, score - control })
        added = added + 1
      elseif not score then
        count_unscored(program, exposed, scores[index + 1], name)
      end
    end
  end
  pair_amounts(counting, exposed, answer)
  if added > 0 then
    redis.call('HSET', answer, 'paired', 1)
  end
  if is_complete then
    local is_paired = redis.call('HEXISTS', answer, 'paired') == 1
    end_shadow(counting, arm_of_shadow(exposed), id, is_paired and 'paired' or 'unscored')
  end
  return added
end
