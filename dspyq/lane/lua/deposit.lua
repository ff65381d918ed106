#!lua
-- Puts a line into a lane, once.
-- Libraries: lane/lines.
-- Arguments:
--   model    the lane's
--   task     whose job sleeps for it
--   batch    that pays
--   id       its custom id
--   version  queue of the job's version
--   line     as JSON
--   bound    nano-dollars that it holds
--   body     of its request
--   record   field of its record among the calls of its job, once it has landed
-- Reply: 1 where it was put, 0 where it is there already, -1 where there is no such job, -2 where it has landed: a run that
--   was stopped for long, or lost its job meanwhile, may be late.
if redis.call('EXISTS', JOB .. task) == 0 then
  return -1
end
if redis.call('HEXISTS', CALLS .. task, record) == 1 then
  return -2
end
if redis.call('HSETNX', part(model, 'lines'), id, line) == 0 then
  return 0
end
redis.call('HSET', part(model, 'bodies'), id, body)
redis.call('INCRBY', part(model, 'held'), bound)
redis.call('ZREM', part(model, 'unpaid'), batch .. ':' .. task)
redis.call('ZADD', part(model, 'open'), string.format('%.3f', now_seconds()), id)
redis.call('HINCRBY', JOB .. task, 'lines', 1)
redis.call('HINCRBY', LANE_VERSIONS, version, 1)
redis.call('SADD', LANES, model)
return 1
