#!lua flags=allow-oom
-- Removes waiting jobs of a queue, and its bells with the last of them.
-- Keys: see jobs.lua.
-- Arguments: queue name; the most jobs to remove.
-- Reply: how many were removed.
local queue, limit = ARGV[1], tonumber(ARGV[2])

local popped = redis.call('ZPOPMIN', queue_key(queue), limit)
for index = 1, #popped, 2 do
  erase(popped[index])
end
if redis.call('EXISTS', queue_key(queue)) == 0 then
  redis.call('DEL', queue)
end
return #popped / 2
