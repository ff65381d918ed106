#!lua flags=allow-oom
-- Removes waiting jobs of a queue, and its bells with the last of them; their questions are free again.
-- Libraries: delivery/jobs, store/aliases, experiments/sums.
-- Arguments:
--   queue         its name
--   limit:number  the most jobs to remove
-- Reply: the number removed.

local function free(id)
  local alias = alias_of(id)
  if alias and redis.call('HGET', alias, 'pending') == id then
    release(alias)
  end
end

local popped = redis.call('ZPOPMIN', QUEUE .. queue, limit)
for index = 1, #popped, 2 do
  pcall(free, popped[index]) -- a damaged record must not stop the others
  pcall(fail_exposures, queue, popped[index], 0)
  erase(popped[index])
end
if redis.call('EXISTS', QUEUE .. queue) == 0 then
  redis.call('DEL', BELLS .. queue)
end
return #popped / 2
