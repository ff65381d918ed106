#!lua flags=allow-oom
-- Moves the second half of a shipment's lines to a new one, which waits for its upload.
-- Libraries: lane/lines.
-- Arguments:
--   model   the lane's
--   token   of the worker that runs it
--   name    the shipment's
--   first   the shipment as it is then, as JSON
--   other   name of the new one
--   second  that one, as JSON
--   lines:number  of the first
-- Reply: 1, or 0 where another worker runs the lane, or it is done.
if not runs_lane(model, token) or redis.call('HEXISTS', part(model, 'shipments'), other) == 1 then
  return 0
end
local shipped, rest = part(model, 'shipped:' .. name), part(model, 'shipped:' .. other)
for _, id in ipairs(redis.call('LRANGE', shipped, lines, -1)) do
  redis.call('RPUSH', rest, id)
end
redis.call('LTRIM', shipped, 0, lines - 1)
redis.call('HSET', part(model, 'shipments'), name, first, other, second)
return 1
