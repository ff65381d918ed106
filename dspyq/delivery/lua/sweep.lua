#!lua flags=allow-oom
-- Moves due jobs and jobs whose lease ran out to their queues, sets those aside that lost it too often, and rings for
-- every waiting job that has no bell.
-- Idempotent: any worker may run it at any time.
-- Keys: see jobs.lua.
-- Arguments: the most to do of each of these; how often a job may lose its lease; after how many seconds without a sweep
--   Redis counts as having been away; for how many seconds then no lease runs out.
-- Reply: {due jobs, bells rung, ids whose lease ran out, ids set aside whose callers do not know yet}.
local limit, max_lost, gap, grace = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = seconds_from_now(0)

local due = redis.call('ZRANGEBYSCORE', DELAYED, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(due) do
  redis.call('ZREM', DELAYED, id)
  enqueue(id)
end

-- Where nobody swept for a while, Redis may have been away, and nobody could renew either: who lives does so now.
local swept_at = redis.call('GET', SWEPT)
redis.call('SET', SWEPT, now)
if swept_at and now - swept_at > gap then
  local renewed_by = seconds_from_now(grace)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', renewed_by)) do
    redis.call('ZADD', LEASES, renewed_by, id)
  end
end
local expired = redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(expired) do
  redis.call('ZREM', LEASES, id)
  if redis.call('EXISTS', job_key(id)) == 1 then
    local lost = redis.call('HINCRBY', job_key(id), 'lost', 1)
    if lost < max_lost then
      enqueue(id)
    else
      redis.call('HINCRBY', job_key(id), 'fence', 1)
      set_aside(id, 'its worker died or froze ' .. lost .. ' times')
    end
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
return { #due, rung, expired, redis.call('SRANDMEMBER', UNTOLD, limit) }
