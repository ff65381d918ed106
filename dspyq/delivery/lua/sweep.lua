#!lua flags=allow-oom
-- Moves due jobs and jobs whose lease ran out to their queues, sets those aside that lost it too often, rings for every
-- waiting job that has no bell, and gives jobs up whose version no worker has served for too long.
-- Idempotent: any worker may run it at any time.
-- Libraries: delivery/jobs.
-- Arguments:
--   limit:number          the most to do of each of these
--   max_lost:number       how often a job may lose its lease
--   gap:number            the seconds without a sweep after which Redis counts as having been away
--   grace:number          for how many seconds then no lease runs out
--   version_wait:number   how many seconds a job waits for a worker of its version
--   most_dead:number      how many jobs that were set aside are kept
--   dead_seconds:number   and for how long
--   served_seconds:number for how long what follows is true
--   worker                the name of this worker where it announces itself, else ''
--   served...             the queues that this worker takes from
-- Reply: {due jobs, bells rung, ids whose lease ran out, ids of dead jobs whose callers are not notified, versions' queues
--   with jobs, pairs of those found without a worker for the first time and how many jobs wait there, how many jobs were
--   given up: any worker of their queue takes those, to fail them, ids of cancelled jobs whose ends this worker stores}.
local now = seconds_from_now(0)

local due = redis.call('ZRANGEBYSCORE', DELAYED, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(due) do
  redis.call('ZREM', DELAYED, id)
  enqueue(id)
end

-- After a time without sweeps Redis may have been down, so that no lease could be renewed; live workers renew now.
local _, swept = pcall(redis.call, 'GET', SWEPT)
local swept_at = tonumber(swept)
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
  if redis.call('EXISTS', JOB .. id) == 1 then
    local is_read, lost = pcall(redis.call, 'HINCRBY', JOB .. id, 'lost', 1)
    if not is_read then
      set_aside_damaged(id)
    elseif lost < max_lost then
      enqueue(id)
    else
      redis.call('HINCRBY', JOB .. id, 'fence', 1)
      set_aside(id, 'its worker died or froze ' .. lost .. ' times')
    end
  end
end

local function forget(ids)
  for _, id in ipairs(ids) do
    if redis.call('SISMEMBER', UNTOLD, id) == 0 then -- its callers first
      redis.call('ZREM', DEAD, id)
      erase(id)
    end
  end
end
forget(redis.call('ZRANGEBYSCORE', DEAD, '-inf', seconds_from_now(-dead_seconds), 'LIMIT', 0, limit))
local surplus = redis.call('ZCARD', DEAD) - most_dead
if surplus > 0 then
  forget(redis.call('ZRANGE', DEAD, 0, math.min(surplus, limit) - 1))
end

local served_until = seconds_from_now(served_seconds)
local announced = {}
for _, queue in ipairs(served) do
  announced[#announced + 1], announced[#announced + 2] = served_until, queue
end
for index = 1, #announced, 1000 do -- a call for each takes five times as long, and Lua passes a few thousand at once
  redis.call('ZADD', SERVED, unpack(announced, index, math.min(index + 999, #announced)))
end
redis.call('ZREMRANGEBYSCORE', SERVED, '-inf', now)
if worker ~= '' then
  redis.call('ZADD', WORKERS, served_until, worker)
  redis.call('ZREMRANGEBYSCORE', WORKERS, '-inf', now)
end

local given_up = 0
-- Puts jobs that have waited too long for a worker of their version before the workers of their queue.
local function give_up(queue, base)
  for _, id in ipairs(redis.call('ZRANGE', QUEUE .. queue, 0, limit - 1)) do
    local passed_on_at = tonumber(redis.call('HGET', JOB .. id, 'passed_on_at') or 0) or 0
    if now - passed_on_at >= version_wait then
      redis.call('ZREM', QUEUE .. queue, id)
      if redis.call('EXISTS', JOB .. id) == 1 then
        redis.call('HSET', JOB .. id, 'queue', base, 'given_up', 1)
        enqueue(id)
        given_up = given_up + 1
      end
    end
  end
end

local versions, unserved = {}, {}
local function look_after_version(queue, base, waiting)
  versions[#versions + 1] = queue
  if redis.call('ZSCORE', SERVED, queue) then
    redis.call('HDEL', UNSERVED, queue)
  elseif redis.call('HSETNX', UNSERVED, queue, now) == 1 then
    unserved[#unserved + 1], unserved[#unserved + 2] = queue, waiting
  elseif tonumber(redis.call('HGET', LANE_VERSIONS, queue) or 0) > 0 then
    redis.call('HSET', UNSERVED, queue, now) -- its calls are at a provider, and paid: a worker of its version may come back
  elseif now - (tonumber(redis.call('HGET', UNSERVED, queue)) or 0) >= version_wait then
    give_up(queue, base)
  end
end

local rung = 0
local function ring_up(queue)
  local waiting, bells = redis.call('ZCARD', QUEUE .. queue), redis.call('LLEN', BELLS .. queue)
  local base = string.match(queue, VERSION_PATTERN)
  if waiting == 0 and base then
    redis.call('DEL', BELLS .. queue) -- no worker listens to it any more
    redis.call('HDEL', UNSERVED, queue)
  end
  if waiting == 0 and (bells == 0 or base) then
    redis.call('SREM', QUEUES, queue)
  elseif base then
    look_after_version(queue, base, waiting)
  end
  local silent = waiting - bells
  for _ = 1, math.min(silent, limit - rung) do
    ring(queue)
    rung = rung + 1
  end
end
for _, queue in ipairs(redis.call('SMEMBERS', QUEUES)) do
  pcall(ring_up, queue) -- a key of another type must not stop the other queues
end

-- One worker stores an end; if it dies before it did, another one does.
local cancelled = redis.call('ZRANGEBYSCORE', CANCELLED, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(cancelled) do
  redis.call('ZADD', CANCELLED, seconds_from_now(SECONDS_TO_STORE_CANCELLED), id)
end
return { #due, rung, expired, redis.call('SRANDMEMBER', UNTOLD, limit), versions, unserved, given_up,
  cancelled }
