-- Puts a job. An existing id is the same job requested again: it only gets the more urgent of both turns, unless this is
-- a newer generation of it (a retry), which ends the older one and its run.
-- Libraries: delivery/putting.
-- Arguments:
--   id                    of the job
--   message               for a worker
--   queue                 its name
--   priority:number       0, the most urgent, to 15
--   delay_seconds:number  until it may be taken
--   generation:number     how often the task has published itself anew
--   is_child              '1' for a child of another task's run, which is put anew when that run is repeated
--   seen                  version of the experiment's state that gave the call its queue, as of claiming.lua
--   input_hash?           of a prediction's question
--   is_own_id?            '1' for a prediction whose caller chose the id
--   result_key?           of the result under that id, '' where answers live elsewhere
--   tenant?               among whose jobs it has its turn
-- Reply: 1 where this message will be delivered, 0 where an older one stands for it, or the child is done; -1 where the id
--   is another question's; the experiment's version and state where they are others than those seen. Where it is neither 1
--   nor 0, nothing is changed.
local reply = put_job({
  id = id,
  message = message,
  queue = queue,
  priority = priority,
  delay_seconds = delay_seconds,
  generation = generation,
  is_child = is_child == '1',
  input_hash = input_hash,
  is_own_id = is_own_id == '1',
  result_key = result_key,
  seen = seen,
  tenant = tenant,
}, now_seconds())
if reply == 1 and input_hash ~= '' and redis.call('HGET', PREDICTION .. input_hash, 'pending') == id then
  redis.call('PERSIST', PREDICTION .. input_hash) -- from here on its claim lasts as long as the job
  if tenant ~= '' then
    redis.call('HSET', PREDICTION .. input_hash, 'tenant', tenant)
  end
end
return reply
