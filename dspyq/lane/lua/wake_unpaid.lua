#!lua flags=allow-oom
-- Wakes rows that wait for money: those first that have begun, then by their turns. Forgets those that do not wait.
-- Libraries: lane/lines.
-- Arguments:
--   model         the lane's
--   token         of the worker that runs it
--   most:number   the most rows to wake
--   limit:number  the most to look at
-- Reply: how many were woken; -1 where another worker runs the lane.
if not runs_lane(model, token) then
  return -1
end
local unpaid, woken = part(model, 'unpaid'), 0
for _, member in ipairs(redis.call('ZRANGE', unpaid, 0, limit - 1)) do
  if woken >= most then
    break
  end
  local id = string.match(member, '^[^:]*:(.*)$')
  local sleeps = redis.call('HEXISTS', JOB .. id, 'asleep') == 1
  local is_delayed = not sleeps and redis.call('ZREM', DELAYED, id) == 1
  if is_delayed then
    enqueue(id)
    woken = woken + 1
  end
  if is_delayed or not redis.call('ZSCORE', LEASES, id) then -- a run that is about to wait for money still has its lease
    redis.call('ZREM', unpaid, member)
  end
end
return woken
