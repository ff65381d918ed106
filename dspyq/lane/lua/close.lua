#!lua flags=allow-oom
-- Forgets a shipment that has landed, and the lane where nothing is left in it.
-- Libraries: lane/lines.
-- Arguments:
--   model  the lane's
--   token  of the worker that runs it
--   name   the shipment's, '' for none
-- Reply: 1, or 0 where another worker runs the lane.
if not runs_lane(model, token) then
  return 0
end
if name ~= '' then
  local past, shipment = part(model, 'past'), redis.call('HGET', part(model, 'shipments'), name)
  if shipment then
    redis.call('LPUSH', past, shipment)
    redis.call('LTRIM', past, 0, MOST_PAST_SHIPMENTS - 1)
    redis.call('EXPIRE', past, SECONDS_OF_BOOKS)
  end
  redis.call('HDEL', part(model, 'shipments'), name)
  redis.call('SREM', part(model, 'cancelled'), name)
  redis.call('DEL', part(model, 'shipped:' .. name), part(model, 'doubled:' .. name))
end
if redis.call('EXISTS', part(model, 'lines'), part(model, 'shipments'), part(model, 'unpaid')) == 0 then
  for _, name in ipairs({ 'bodies', 'open', 'runner', 'cancelled', 'held', 'synced' }) do
    redis.call('DEL', part(model, name))
  end
  redis.call('SREM', LANES, model)
end
return 1
