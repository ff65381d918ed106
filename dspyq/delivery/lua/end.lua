#!lua flags=allow-oom
-- Ends jobs in any state from outside: their runs, if any, have lost them from now on.
-- Libraries: delivery/jobs.
-- Arguments:
--   ids...  of the jobs
-- Reply: the messages of existing jobs, '' for the others.
local messages = {}
for index, id in ipairs(ids) do
  messages[index] = redis.call('HGET', JOB .. id, 'message') or ''
  leave(id)
  erase(id)
end
return messages
