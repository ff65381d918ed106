#!lua flags=allow-oom
-- Returns lines of a shipment to those in none, where their requests are still there.
-- Libraries: lane/lines.
-- Arguments:
--   model         the lane's
--   token         of the worker that runs it
--   name          the shipment's
--   limit:number  the most lines
-- Reply: the lines that its list still holds; -1 where another worker runs the lane.
if not runs_lane(model, token) then
  return -1
end
local shipped, now = part(model, 'shipped:' .. name), string.format('%.3f', now_seconds())
for _ = 1, limit do
  local id = redis.call('LPOP', shipped)
  if not id then
    break
  end
  local text = redis.call('HGET', part(model, 'lines'), id)
  if text and redis.call('HEXISTS', part(model, 'bodies'), id) == 1 then
    redis.call('ZADD', part(model, 'open'), now, id)
    local job = JOB .. cjson.decode(text).task
    if redis.call('EXISTS', job) == 1 then
      redis.call('HINCRBY', job, 'shipped', -1)
    end
  end
end
return redis.call('LLEN', shipped)
