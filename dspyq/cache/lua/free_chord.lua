#!lua flags=allow-oom
-- Frees a chord that a run has claimed, so that another run calls its body; not one whose body has been called.
-- Keys:
--   claim  CHORD: Celery's claim of it
-- Reply: 1 if it was claimed, otherwise 0.
local holder = redis.call('GET', claim)
if holder and holder ~= 'done' then
  return redis.call('DEL', claim)
end
return 0
