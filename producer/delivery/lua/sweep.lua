#!lua flags=allow-oom
-- Moves due jobs and jobs whose lease ran out to their queues, and rings for every waiting job that has no bell.
-- Idempotent: any worker may run it at any time.
-- Keys: see library.lua.
-- Arguments: the most to do of each of the three.
-- Reply: {due jobs, bells rung, ids whose lease ran out}.
local limit = tonumber(ARGV[1])
local now = seconds_from_now(0)

local due = redis.call('ZRANGEBYSCORE', DELAYED, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(due) do
  redis.call('ZREM', DELAYED, id)
  enqueue(id)
end

local expired = redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(expired) do
  redis.call('ZREM', LEASES, id)
  if redis.call('EXISTS', job_key(id)) == 1 then
    redis.call('HINCRBY', job_key(id), 'lost', 1)
    enqueue(id)
  end
end

local rung = 0
for _, queue in ipairs(redis.call('SMEMBERS', QUEUES)) do
  local silent = redis.call('ZCARD', queue_key(queue)) - redis.call('LLEN', queue)
  for _ = 1, math.min(silent, limit - rung) do
    ring(queue)
    rung = rung + 1
  end
end
return { #due, rung, expired }
