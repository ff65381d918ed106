-- Shared by the scripts on jobs. Every time is in seconds of Redis's own clock.
--
-- An unfinished job is one hash and stands in exactly one place:
--   dspy:v1:job:<id>      hash: message, queue, score, fence (another number for each take, raised whenever a run is
--                         ended from outside), runs (how often it was taken), generation (raised by the task when it
--                         publishes itself anew), put_at (the second it was first put), lost (leases that ran out),
--                         passed_on_at (the second it was moved to the queue of its version), given_up (there once it
--                         waited there too long), child (there for one of another task's run), reason (why it was set
--                         aside), input_hash (of a prediction's question), disowned_by (the batch that its message
--                         names and that does not pay for it any more), stream
--                         (there once a caller who joined it has it streamed), exposed (there once its call
--                         is noted for its experiment), tenant (that asked, where one did), and those of sleepers.lua
--   dspy:v1:queue:<name>  place: sorted set by score, which is priority * 2^49 + sequence, or + turn where tenants
--                         share queues (delivery/turns.lua); the lowest is first
--                         A version's queue is <name>@<16 hexadecimal digits>: of the jobs of <name> that workers of
--                         another version passed on; workers of that version take from both, in one order
--   dspy:v1:delayed       place: sorted set by the second the job is due
--   dspy:v1:leases        place: sorted set by the second the lease runs out
--   dspy:v1:dead          place: sorted set by the second the job was set aside; its hash has the reason
-- And beside it:
--   dspy:v1:prediction:<input hash>  the alias of a question, of the scripts on claims; put keeps it, purge frees it
--   dspy:v1:calls:<id>    what its runs have paid for already, written by the workers' guards; ends with the job
--   dspy:v1:untold        set of dead jobs whose callers are not notified yet
--   dspy:v1:cancelled     sorted set of cancelled jobs whose ends no worker has stored yet, by the second one is to;
--                         dspy:v1:cancelled-jobs has their messages
--   dspy:v1:done:<id>     marks for an hour a finished child of another task's run
--   dspy:v1:queues        set of the names of the queues that hold jobs or bells; a sweep removes the others
--   dspy:v1:served        sorted set of the queues, and versions' queues, that live workers take from, by the second
--                         until which that holds
--   dspy:v1:workers       sorted set of the live workers that take from this Redis, by the second until which that holds
--   dspy:v1:lane-versions hash: by version's queue, how many model calls of its jobs are in a provider's batch interface
--   dspy:v1:unserved      hash: by version's queue, the second a sweep first found jobs in it and no worker
--   dspy:v1:swept         the second of the last sweep
--   dspy:v1:seq           the last sequence given out
--   dspy:v1:turns:<name>:<priority>  hash by tenant, '' for none: the last turn given to its jobs in a queue
--   <name>                list of bells, watched by kombu; losing or doubling one is harmless
local VERSION_PATTERN = '^(.+)@' .. string.rep('%x', 16) .. '$'
local SEQUENCES_PER_PRIORITY = 2 ^ 49

local function seconds_from_now(seconds)
  return string.format('%.6f', now_seconds() + seconds)
end

local function ring(name)
  redis.call('LPUSH', BELLS .. name, '1')
end

-- The input hash that a job's message names, for jobs of 0.1, which have no field for it; nil where it is no
-- prediction's. 0.3 drops this.
local function input_hash_of_0_1(message)
  local at = string.find(message, '"input_hash"', 1, true)
  return at and string.match(message, '^"input_hash": ?"(%x+)"', at)
end

-- Puts a job into its queue at its turn.
local function line_up(id, queue, score)
  redis.call('SADD', QUEUES, queue)
  redis.call('ZADD', QUEUE .. queue, score, id)
  ring(queue)
end

-- Puts many new jobs into their queue, given as pairs of score and id.
local function line_up_many(queue, places)
  redis.call('SADD', QUEUES, queue)
  redis.call('ZADD', QUEUE .. queue, unpack(places))
  local bells = {}
  for index = 1, #places / 2 do
    bells[index] = '1'
  end
  redis.call('LPUSH', BELLS .. queue, unpack(bells))
end

-- The alias of a job's question; nil where it has none.
local function alias_of(id)
  local input_hash = redis.call('HGET', JOB .. id, 'input_hash')
  input_hash = input_hash or input_hash_of_0_1(redis.call('HGET', JOB .. id, 'message') or '')
  return input_hash and PREDICTION .. input_hash
end

-- Gives the claim that lasts as long as a job an end; an answer that is still good keeps its time.
local function end_claim(id)
  local alias = alias_of(id)
  local held = alias and redis.call('HMGET', alias, 'pending', 'until') or {}
  if held[1] == id then
    local soonest = now_milliseconds() + SECONDS_UNRELEASED * 1000
    redis.call('PEXPIREAT', alias, whole(math.max(soonest, tonumber(held[2] or 0))))
  end
end

-- Deletes the records of a job that has left its place. Its process releases its claim, unless it dies before.
local function erase(id)
  pcall(end_claim, id) -- a damaged record must not stop the others
  redis.call('DEL', JOB .. id, CALLS .. id)
end

-- Removes a job from its place.
local function leave(id)
  redis.call('ZREM', LEASES, id)
  redis.call('ZREM', DELAYED, id)
  redis.call('ZREM', DEAD, id)
  redis.call('SREM', UNTOLD, id)
  local queue = redis.call('HGET', JOB .. id, 'queue')
  if queue then
    redis.call('ZREM', QUEUE .. queue, id)
  end
end

-- Dead-letters a job that is in no place: only its record stays, to be inspected and replayed.
local function set_aside(id, reason)
  redis.call('HSET', JOB .. id, 'reason', reason)
  redis.call('ZADD', DEAD, seconds_from_now(0), id)
  redis.call('SADD', UNTOLD, id)
end

-- Dead-letters a job that is in no place and has a damaged record; without a record there is no job.
local function set_aside_damaged(id)
  if redis.call('TYPE', JOB .. id).ok == 'hash' then
    set_aside(id, 'its record cannot be read')
  end
end

-- Puts a job, if it still has a record, into its queue at its own turn.
local function enqueue(id)
  local is_read, job = pcall(redis.call, 'HMGET', JOB .. id, 'queue', 'score')
  if is_read and job[1] and tonumber(job[2]) then
    line_up(id, job[1], job[2])
  else
    set_aside_damaged(id)
  end
end
