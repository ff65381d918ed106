-- Notes that a challenger is to be asked a question of the control unseen, with the control's scores for the pair.
-- Libraries: experiments/shadows.
-- Arguments:
--   program     its name
--   control_id  of the task that answered for the control
--   id          of the shadow run
--   arm         that is asked
--   refused     '1' where its account refuses, else ''
--   scores...   pairs of name and the control's score, in whole millionths of its range
-- Reply: asked: it is to be asked, also where it was noted before and has no answer yet; or why not: refused, full (too
-- many wait), known (it has ended), gone (the experiment has).
local exposed = split(redis.call('HGET', EXPERIMENT_ANSWER .. control_id, 'exposure') or '')
local counting = exposed[1] and counting_of(program, exposed[1])
if not counting then
  return 'gone'
end
local waiting, answer, now = counting.base .. 'shadows', EXPERIMENT_ANSWER .. id, now_milliseconds()
if redis.call('EXISTS', answer) == 1 then
  return redis.call('ZSCORE', waiting, arm .. ' ' .. id) and 'asked' or 'known'
end
for _, given_up in ipairs(redis.call('ZRANGEBYSCORE', waiting, '-inf', whole(now), 'LIMIT', 0, 100)) do
  local its_arm, its_id = string.match(given_up, '^(%S+) (.*)$')
  end_shadow(counting, its_arm, its_id, 'lost')
end
local is_full = redis.call('ZCARD', waiting) >= MOST_SHADOWS
if refused == '1' or is_full then
  local why = refused == '1' and 'refused' or 'full'
  redis.call('HSET', answer, 'ended', why) -- a repetition counts nothing
  redis.call('EXPIRE', answer, SECONDS_OF_SHADOW)
  count_shadow(counting, arm, why)
  return why
end
exposed[2] = 'shadow:' .. arm
redis.call('HSET', answer, 'exposure', table.concat(exposed, ' '))
for index = 1, #scores, 2 do
  redis.call('HSET', answer, 'c:' .. scores[index], scores[index + 1])
end
local paid = redis.call('HMGET', EXPERIMENT_ANSWER .. control_id, 'cost', 'time')
if paid[1] and paid[2] then
  redis.call('HSET', answer, 'c:cost', paid[1], 'c:time', paid[2])
end
redis.call('HSET', answer, 'control', control_id)
redis.call('EXPIRE', answer, SECONDS_OF_SHADOW)
redis.call('ZADD', waiting, whole(now + SECONDS_OF_SHADOW * 1000), arm .. ' ' .. id)
redis.call('EXPIRE', waiting, SECONDS_OF_EXPERIMENT)
count_shadow(counting, arm, 'asked')
return 'asked'
