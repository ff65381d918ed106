#!lua flags=allow-oom
-- Has the batch of a shipment cancelled at its provider, by the worker that runs the lane.
-- Libraries: lane/lines.
-- Arguments:
--   model  the lane's
--   name   the shipment's
-- Reply: 1, or 0 where there is no such shipment, or this was asked before.
if redis.call('HEXISTS', part(model, 'shipments'), name) == 0 then
  return 0
end
return redis.call('SADD', part(model, 'cancelled'), name)
