-- Puts a job. An id that exists already is the same job asked for again: it gets the more urgent of both turns, and
-- nothing else, unless this is a newer generation of it (a retry), which ends the older one and its run.
-- Keys: see jobs.lua.
-- Arguments: id; message; queue name; priority (0, the most urgent, to 15); delay, seconds; generation; '1' for a child
--   of another task's run, which is put anew when that run is repeated.
-- Reply: 1 where this message will be delivered, 0 where an older one stands for it, or the child is done.
local id, message, queue = ARGV[1], ARGV[2], ARGV[3]
local priority, delay_seconds, generation = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local job = job_key(id)
local is_child = ARGV[7] == '1'

if is_child and redis.call('EXISTS', done_key(id)) == 1 then
  return 0
end
local old = redis.call('HMGET', job, 'score', 'generation', 'queue')
local exists, old_score = old[1], tonumber(old[1])
local sequence = exists and old_score % SEQUENCES_PER_PRIORITY or redis.call('INCR', SEQUENCE)
local score = string.format('%.0f', math.min(old_score or math.huge, priority * SEQUENCES_PER_PRIORITY + sequence))

if exists and generation <= tonumber(old[2]) then
  redis.call('HSET', job, 'score', score)
  redis.call('ZADD', queue_key(old[3]), 'XX', score, id)
  return 0
end
if exists then
  leave(id)
  redis.call('HINCRBY', job, 'fence', 1)
end
-- Its place first: where that fails, as over a key that holds something else, no record is left that says it was put.
redis.call('SADD', QUEUES, queue)
if delay_seconds > 0 then
  redis.call('ZADD', DELAYED, seconds_from_now(delay_seconds), id)
else
  line_up(id, queue, score)
end
redis.call('HSET', job, 'message', message, 'queue', queue, 'score', score, 'generation', generation)
redis.call('HSETNX', job, 'put_at', seconds_from_now(0))
if is_child then
  redis.call('HSET', job, 'child', 1)
end
return 1
