-- Ends a shadow run that has no answer; a repetition changes nothing.
-- Libraries: experiments/shadows.
-- Arguments:
--   program  its name
--   id       of the shadow run
--   reason   refused or failed
-- Reply: 1 if it waited, else 0.
local exposed = split(redis.call('HGET', EXPERIMENT_ANSWER .. id, 'exposure') or '')
local counting = exposed[1] and counting_of(program, exposed[1])
if not counting then
  return 0
end
return end_shadow(counting, arm_of_shadow(exposed), id, reason) and 1 or 0
