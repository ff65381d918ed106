-- Shared by every script here. Keys are built inside the scripts, so this is for one Redis, not for Redis Cluster.
-- Every time is in seconds of Redis's own clock.
--
-- An unfinished job is one hash and stands in exactly one place:
--   dspy:v1:job:<id>      hash: message, queue, score, fence (another number for each take, raised whenever a run is
--                         ended from outside), runs (how often it was taken), generation (raised by the task when it
--                         publishes itself anew), put_at (the second it was first put), lost (leases that ran out),
--                         hand_backs (by workers that cannot run it), child (there for one of another task's run),
--                         reason (why it was set aside)
--   dspy:v1:queue:<name>  place: sorted set by score, which is priority * 2^49 + sequence; the lowest is first
--   dspy:v1:delayed       place: sorted set by the second the job is due
--   dspy:v1:leases        place: sorted set by the second the lease runs out
--   dspy:v1:dead          place: sorted set by the second the job was set aside; its hash says the reason
-- And beside it:
--   dspy:v1:prediction:<input hash>  the alias of a question, of the scripts on claims; read by take alone
--   dspy:v1:calls:<id>    what its runs have paid for already, written by the workers' guards; ends with the job
--   dspy:v1:untold        set of the dead whose callers do not know yet
--   dspy:v1:done:<id>     says for an hour that a child of another task's run is done
--   dspy:v1:queues        set of the names of all queues that ever held a job
--   dspy:v1:swept         the second of the last sweep
--   dspy:v1:seq           the last sequence given out
--   <name>                list of bells, watched by kombu; losing or doubling one is harmless
local PREFIX = 'dspy:v1:'
local DELAYED, LEASES, QUEUES, SEQUENCE = PREFIX .. 'delayed', PREFIX .. 'leases', PREFIX .. 'queues', PREFIX .. 'seq'
local DEAD, UNTOLD, SWEPT = PREFIX .. 'dead', PREFIX .. 'untold', PREFIX .. 'swept'
local SECONDS_DONE = 3600
local SEQUENCES_PER_PRIORITY = 2 ^ 49

local function job_key(id)
  return PREFIX .. 'job:' .. id
end

local function done_key(id)
  return PREFIX .. 'done:' .. id
end

local function queue_key(name)
  return PREFIX .. 'queue:' .. name
end

local function seconds_from_now(seconds)
  local now = redis.call('TIME')
  return string.format('%.6f', now[1] + now[2] / 1e6 + seconds)
end

local function ring(name)
  redis.call('LPUSH', name, '1')
end

-- Whether this run still is the job's latest.
local function holds(id, fence)
  return redis.call('HGET', job_key(id), 'fence') == fence
end

-- Puts a job into its queue at its turn.
local function line_up(id, queue, score)
  redis.call('ZADD', queue_key(queue), score, id)
  ring(queue)
end

-- Puts a job, if it still has a record, into its queue at its own turn.
local function enqueue(id)
  local job = redis.call('HMGET', job_key(id), 'queue', 'score')
  if job[1] then
    line_up(id, job[1], job[2])
  end
end

-- Removes what is kept of a job that stands in no place any more.
local function erase(id)
  redis.call('DEL', job_key(id), PREFIX .. 'calls:' .. id)
end

-- Takes a job out of its place, whichever that is.
local function leave(id)
  redis.call('ZREM', LEASES, id)
  redis.call('ZREM', DELAYED, id)
  redis.call('ZREM', DEAD, id)
  redis.call('SREM', UNTOLD, id)
  local queue = redis.call('HGET', job_key(id), 'queue')
  if queue then
    redis.call('ZREM', queue_key(queue), id)
  end
end

-- Takes a job that stands in no place out of the traffic: only its record stays, to be looked at and replayed.
local function set_aside(id, reason)
  redis.call('HSET', job_key(id), 'reason', reason)
  redis.call('ZADD', DEAD, seconds_from_now(0), id)
  redis.call('SADD', UNTOLD, id)
end
