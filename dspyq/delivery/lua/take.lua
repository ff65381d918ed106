#!lua flags=allow-oom
-- Leases the first jobs of a queue to new runs of them: one for the bell that rang, and one for each further bell that no
-- worker waits for, whose bells end with it.
-- Libraries: delivery/jobs.
-- Arguments:
--   queue                 its name
--   lease_seconds:number  of the runs
--   version_queue         the queue of the worker's version where jobs wait there, otherwise ''
--   most_bytes:number     of a message: a larger one is set aside unread
--   most:number           jobs that the worker can begin at once
-- Reply: for each job {id, the run's fence, how many runs it had, this one included, 1 where it waited too long for a
--   worker of its version, message, 1 where its question is claimed for it and not answered, the batch that its message
--   names and that does not pay for it any more or '', 1 where a caller who joined it has it streamed}; none where nothing
--   waits.
-- Of every run that begins here: a job never had it before, nor an ended job of its id. It is the time, for a Redis that
-- restarts without its latest writes gives the numbers of a counter out once more, while runs with them go on.
local fence

-- True if the alias of a job's question names this job: then the run needs no look-up.
local function claims_its_question(id, input_hash)
  if not input_hash then
    return 0
  end
  local alias = redis.call('HMGET', PREDICTION .. input_hash, 'pending', 'answered')
  return alias[1] == id and not alias[2] and 1 or 0
end

local function lease(id)
  local job = redis.call('HMGET', JOB .. id, 'message', 'given_up', 'input_hash', 'disowned_by', 'runs', 'stream')
  local message = job[1]
  if not message then -- no record, no delivery
    return nil
  end
  if #message > most_bytes then
    set_aside(id, 'its message takes ' .. #message .. ' bytes, more than delivery.max_job_bytes')
    return nil
  end
  local runs = tonumber(job[5] or 0) + 1
  fence = fence or now_microseconds()
  redis.call('HSET', JOB .. id, 'runs', whole(runs), 'fence', fence)
  local is_claimed = claims_its_question(id, job[3] or input_hash_of_0_1(message))
  return { id, fence, runs, job[2] and 1 or 0, message, is_claimed, job[4] or '', job[6] and 1 or 0 }
end

-- The key of the first of two queues.
local function first_of(one, other)
  local first = redis.call('ZRANGE', one, 0, 0, 'WITHSCORES')[2]
  local second = redis.call('ZRANGE', other, 0, 0, 'WITHSCORES')[2]
  return (not first or second and tonumber(second) < tonumber(first)) and other or one
end

-- Takes that many ids off the queue; fewer where fewer wait.
local function pop(number)
  local key = QUEUE .. queue
  local popped = redis.call('ZPOPMIN', version_queue ~= '' and first_of(key, QUEUE .. version_queue) or key, number)
  local ids = {}
  for index = 1, #popped, 2 do
    ids[#ids + 1] = popped[index]
  end
  return ids
end

-- A bell in the list is one that no worker waits for: only so many are taken besides. What is no bell stays.
local wanted = 1 + (most > 1 and redis.call('LREM', BELLS .. queue, 1 - most, '1') or 0)
local until_second = seconds_from_now(lease_seconds)
local taken, leases = {}, {}
while #taken < wanted do
  local ids = pop(version_queue == '' and wanted - #taken or 1)
  if #ids == 0 then
    break
  end
  for _, id in ipairs(ids) do
    local is_read, delivery = pcall(lease, id)
    if not is_read then
      set_aside_damaged(id)
    elseif delivery then
      taken[#taken + 1] = delivery
      leases[#leases + 1], leases[#leases + 2] = until_second, id
    end
  end
end
if #taken > 0 then
  redis.call('ZADD', LEASES, unpack(leases))
end
return taken
