#!lua flags=allow-oom
-- Makes a worker the one that runs a lane, or renews that.
-- Libraries: lane/lines.
-- Arguments:
--   model         the lane's
--   token         of the worker
--   milliseconds  of the lease
-- Reply: 1, or 0 where another one runs it.
local runner = part(model, 'runner')
local held_by = redis.call('GET', runner)
if held_by and held_by ~= token then
  return 0
end
redis.call('SET', runner, token, 'PX', milliseconds)
return 1
