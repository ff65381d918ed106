#!lua flags=allow-oom
-- Frees a chord that a run has claimed, so that another run calls its body; not one whose body has been called.
-- Keys: Celery's claim of the chord.
-- Arguments: none.
-- Reply: 1 where it was claimed, otherwise 0.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= 'done' then
  return redis.call('DEL', KEYS[1])
end
return 0
