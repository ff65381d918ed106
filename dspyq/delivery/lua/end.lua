#!lua flags=allow-oom
-- Ends jobs in any state from outside: their runs, if any, have lost them from now on.
-- Libraries: delivery/jobs.
-- Arguments:
--   is_answered  '1' where no caller waits for their results, '' where a worker is to store that they were cancelled
--   ids...       of the jobs
-- Reply: the messages of existing jobs, '' for the others.
local messages = {}
for index, id in ipairs(ids) do
  local message = redis.call('HGET', JOB .. id, 'message') or ''
  messages[index] = message
  leave(id)
  erase(id)
  if message ~= '' and is_answered == '' then
    redis.call('HSET', CANCELLED_JOBS, id, message)
    redis.call('ZADD', CANCELLED, seconds_from_now(0), id)
  end
end
return messages
