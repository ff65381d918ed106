-- Shared by the scripts that put a job.
-- Libraries: delivery/turns, experiments/state.

-- True if there is a result of another question. Jobs are checked so only if they are of 0.1; 0.3 drops this.
local function is_of_another(text, input_hash)
  if not text or string.find(text, '"input_hash":"' .. input_hash .. '"', 1, true) then
    return false
  end
  return not string.find(text, '"input_hash": "' .. input_hash .. '"', 1, true)
end

-- True if the id is another question's, by its result or by the job that has it.
local function is_taken(job, has_record)
  if has_record then
    local record = redis.call('HMGET', JOB .. job.id, 'input_hash', 'message')
    return record[1] and record[1] ~= job.input_hash or not record[1] and is_of_another(record[2], job.input_hash)
  end
  local result = job.result_key ~= '' and redis.call('GET', job.result_key)
  return result and string.find(result, '"input_hash":', 1, true) and is_of_another(result, job.input_hash)
end

-- Puts a job, given as a table of put.lua's arguments and the second it is; returns put.lua's reply, and the job's score
-- if it was put before.
local function put_job(job, now)
  if job.is_child and redis.call('EXISTS', DONE .. job.id) == 1 then
    return 0
  end
  local key = JOB .. job.id
  local old = redis.call('HMGET', key, 'score', 'generation', 'queue', 'input_hash')
  local exists, old_score = old[1], tonumber(old[1])
  local is_older = exists and job.generation <= tonumber(old[2])

  local newer = not (is_older and old[4] == job.input_hash) and other_state(job.queue, job.seen)
  if newer then
    return newer, exists
  end
  if job.is_own_id and (not exists or is_older) and is_taken(job, exists) then
    return -1, exists
  end
  local turn = exists and old_score % SEQUENCES_PER_PRIORITY or redis.call('INCR', SEQUENCE)
  if not exists and (job.tenant ~= '' or turn >= SEQUENCES_WITH_TENANTS) then
    turn = fair_turn(job.queue, job.priority, job.tenant, turn, 1)
  end
  local score = whole(math.min(old_score or math.huge, job.priority * SEQUENCES_PER_PRIORITY + turn))
  if is_older then
    redis.call('HSET', key, 'score', score)
    redis.call('ZADD', QUEUE .. old[3], 'XX', score, job.id)
    return 0, exists
  end
  if not exists and redis.call('ZREM', CANCELLED, job.id) == 1 then -- its id is used again
    redis.call('HDEL', CANCELLED_JOBS, job.id)
  end
  if exists then
    leave(job.id)
    redis.call('HDEL', key, 'passed_on_at', 'given_up')
    redis.call('HINCRBY', key, 'fence', 1)
  end
  -- Its place first: if that fails, as with a key of another type, no record claims that the job was put.
  if job.delay_seconds > 0 then
    redis.call('ZADD', DELAYED, string.format('%.6f', now + job.delay_seconds), job.id)
  else
    line_up(job.id, job.queue, score)
  end
  local fields = { 'message', job.message, 'queue', job.queue, 'score', score, 'generation', job.generation }
  local function add(name, value)
    fields[#fields + 1], fields[#fields + 2] = name, value
  end
  if not exists then
    add('put_at', string.format('%.6f', now))
  end
  if job.is_child then
    add('child', 1)
  end
  if job.input_hash ~= '' then
    add('input_hash', job.input_hash)
  end
  if job.tenant ~= '' then
    add('tenant', job.tenant)
  end
  redis.call('HSET', key, unpack(fields))
  return 1, exists
end
