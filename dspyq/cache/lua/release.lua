#!lua flags=allow-oom
-- Ends a run without an answer, so that the next caller computes it again.
-- Libraries: cache/claims, experiments/sums.
-- Keys:
--   alias      PREDICTION: of the question
-- Arguments:
--   id         of the task
--   fence      of the run, '' for none
--   queue      the variant's
--   batch      that pays for it, where it is to end only for that one, else ''
--   counts...  pairs of statistics field and amount; none where a claim is given back
-- Reply: 1; 0 if another run has taken the job; 2 if other callers than the batch wait for it, or may, and if a claim is
--   released whose job was sent: then nothing is changed.
local failed = #counts > 0
local is_given_back = fence == '' and not failed -- by a producer, whose job may have been sent or not

if not may_change(id, fence) then
  return 0
end
local held = redis.call('HMGET', alias, 'pending', 'joined', 'answered', 'uncounted', 'batch')
if is_given_back and (held[3] == id or redis.call('EXISTS', JOB .. id) == 1) then
  return 2
end
local is_batch_s_alone = held[1] == id and tonumber(held[2]) == 0 and not held[4] and held[5] == batch
if batch ~= '' and not is_batch_s_alone then
  return 2
end
count(queue, counts)
if not failed then
  unexpose(id, id) -- its caller gets an error; others that wait for it get no answer
end
fail_exposures(queue, id, amount_of(counts, 'cost_nano_usd'))
if held[3] == id then -- it ended in another way: the result under its id may be an error
  redis.call('HDEL', alias, 'answered', 'until', 'cost')
  if not held[1] then
    redis.call('DEL', alias)
  end
end
if held[1] == id then
  if failed then
    count(queue, { 'failures', held[2] })
  end
  release(alias)
end
return 1
