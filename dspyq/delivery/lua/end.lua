#!lua flags=allow-oom
-- Ends jobs from outside, wherever they stand: their runs, if there are any, hold nothing from now on.
-- Keys: see jobs.lua.
-- Arguments: ids.
-- Reply: the messages of those that there were, '' for the others.
local messages = {}
for index, id in ipairs(ARGV) do
  messages[index] = redis.call('HGET', job_key(id), 'message') or ''
  leave(id)
  erase(id)
end
return messages
