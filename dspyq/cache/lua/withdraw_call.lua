#!lua flags=allow-oom
-- Withdraws a call that has a name of its own from its run, once, notes that on the call, and publishes it for its streams.
-- Libraries: cache/withdrawing.
-- Keys:
--   alias            PREDICTION: of the question
--   call             SERVE_CALL: of the call
--   judgements       JUDGEMENTS: of the call
-- Arguments:
--   id               of the task
--   caller           the id under which an experiment counts the call
--   mark             cancelled, or gone for a call that is to be forgotten
--   seconds:number   how long that is remembered
-- Reply: 1 if no caller waits for the run any more: then the question is free; 0 if others do or may, it is no run, or the
--   call was withdrawn before.
local before = redis.call('GET', call)
redis.call('SET', call, before == 'gone' and before or mark, 'EX', seconds)
if mark == 'gone' then
  redis.call('DEL', judgements)
end
if before then
  return 0
end
redis.call(PUBLISH, SERVE_WITHDRAWN, caller)
return withdraw(alias, id, caller, false, '')
