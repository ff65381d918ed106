#!lua flags=allow-oom
-- Leaves a lane to other workers at once.
-- Libraries: lane/lines.
-- Arguments:
--   model  the lane's
--   token  of the worker
-- Reply: 1, or 0 where another one runs it.
if not runs_lane(model, token) then
  return 0
end
return redis.call('DEL', part(model, 'runner'))
