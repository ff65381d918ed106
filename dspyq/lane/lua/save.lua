#!lua flags=allow-oom
-- Saves a shipment's next step, before it is taken.
-- Libraries: lane/lines.
-- Arguments:
--   model     the lane's
--   token     of the worker that runs it
--   name      the shipment's
--   shipment  as JSON
-- Reply: 1, or 0 where another worker runs the lane.
if not runs_lane(model, token) then
  return 0
end
redis.call('HSET', part(model, 'shipments'), name, shipment)
return 1
