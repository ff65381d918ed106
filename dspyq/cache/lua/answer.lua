#!lua flags=allow-oom
-- Stores a run's answer, notifies its waiters, serves it by the alias, and ends the job if nothing else is left to do.
-- Libraries: cache/claims, experiments/sums.
-- Keys:
--   alias                 PREDICTION: of the question
--   result_key?           RESULT: left out where answers live elsewhere
-- Arguments:
--   id                    of the task
--   fence                 of the run, '' for none
--   serve_seconds:number  how long the answer is served, 0 for not at all
--   keep_seconds          how long the result is kept
--   result                what is stored
--   input_hash            of the question
--   queue                 the variant's
--   cost                  nano-dollars, 0 where that is unknown
--   day                   label of the current day
--   is_last               '1' where nothing is left to do, else ''
--   time_ms:number        how long its program ran
--   tokens:number         it used
--   is_fallback           '1' where it is not its variant's own answer, else ''
--   found                 redis or joined where it is a copy of another task's answer, else ''
--   unscored              the answer and its inputs, for the scores of an experiment; '' for none
--   row                   what an experiment keeps of it for exports, '' for nothing
--   counts...             pairs of statistics field and amount
-- Reply: 1; 2 if the job is ended too; 4 more if the answer waits for its scores; or 0 if another run has taken the job:
-- then nothing is stored.

local run = redis.call('HMGET', JOB .. id, 'fence', 'child')

-- Ends the job, unless its lease has expired, or another task published it and must learn that it is done: then
-- finish.lua ends it.
local function end_job()
  if is_last ~= '1' or run[2] or redis.call('ZREM', LEASES, id) == 0 then
    return 1
  end
  redis.call('DEL', JOB .. id, CALLS .. id)
  return 2
end

-- Publishes the result for callers that wait for this task, and, behind its id, for the process that sent it, whose ids
-- begin alike (dspyq/store/keys.py).
local function publish()
  redis.call(PUBLISH, result_key, result)
  if #id == 36 then
    redis.call(PUBLISH, string.sub(result_key, 1, -24), id .. result)
  end
end

if fence ~= '' and run[1] ~= fence then
  return 0
end
local reply = end_job()
if result_key then
  redis.call('SET', result_key, result, 'EX', keep_seconds)
  publish()
end
local held = redis.call('HMGET', alias, 'pending', 'answered', 'joined', 'tenant', 'others')
local pending, answered, joined = held[1], held[2], held[3]
if answered == id then -- delivered again: already counted and served
  return reply
end
count(queue, counts)
local is_own, is_copy = is_fallback ~= '1', found ~= ''
close_exposures(queue, id, {
  failed = 0, fallback = is_own and 0 or 1, hit = found == 'redis' and 1 or 0, cost = not is_copy and cost,
  answer = is_own and (is_copy and answered or id), time = is_own and not is_copy and time_ms, tokens = tokens,
  scored_within = serve_seconds + SECONDS_OF_SCORING, row = row,
})
local awaits_scores = is_own and not is_copy and unscored ~= ''
if awaits_scores and survived(queue, await_scores, program_of(queue), id, unscored, cost, time_ms) then
  reply = reply + 4
end
if pending ~= id then -- invalidated or forgotten meanwhile: it must not come back
  return reply
end
count(queue, { 'successes', joined })
avoided(day, queue, cost * joined, not held[5] and held[4] or '') -- of several tenants, to the account of none
if serve_seconds == 0 then
  release(alias)
  return reply
end
local till = whole(now_milliseconds() + serve_seconds * 1000)
redis.call('HDEL', alias, 'pending', 'since', 'priority', 'joined', 'uncounted', 'batch')
redis.call('HSET', alias, 'answered', id, 'until', till, 'cost', cost)
redis.call('PEXPIREAT', alias, till)
if answered then
  redis.call(PUBLISH, INVALIDATIONS, input_hash)
end
return reply
