-- Shared by the scripts on aliases. Keys but the alias are built inside the scripts, so this is for one Redis, not for
-- Redis Cluster. Every time is in milliseconds of Redis's own clock.
--
-- An alias, dspy:v1:prediction:<input hash>, is a hash with these fields:
--   queue              <program>.<variant> whose question it is
--   answered, until    task id of the answer, and the time up to which it is served
--   cost               nano-dollars that the answer cost
--   pending, since     task id of the run under way, and the time of its claim
--   priority, joined   the turn of that run, and how many further callers wait for it
--   uncounted          set where more may wait for it than that
--   batch              id of the batch that claimed that run, and so pays for it
local PREFIX = 'dspy:v1:'
local INVALIDATIONS = PREFIX .. 'invalidations'
local SECONDS_OF_BOOKS = 400 * 86400

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Whether a run may still change what is stored: no other run has taken its job since. No fence, nothing to check.
local function holds(id, fence)
  return fence == '' or redis.call('HGET', PREFIX .. 'job:' .. id, 'fence') == fence
end

-- Adds to a variant's statistics, given as pairs of field and amount.
local function count(queue, counts)
  for index = 1, #counts, 2 do
    if counts[index + 1] ~= '0' then
      redis.call('HINCRBY', PREFIX .. 'statistics:' .. queue, counts[index], counts[index + 1])
    end
  end
end

-- Adds what callers were saved by an answer that was there, in nano-dollars, to the books of a day.
local function avoided(day, queue, amount)
  local key = PREFIX .. 'costs:' .. day
  if amount ~= 0 and redis.call('HINCRBY', key, queue .. ' avoided_nano_usd', whole(amount)) == amount then
    redis.call('EXPIRE', key, SECONDS_OF_BOOKS)
  end
end

-- Takes a run off its alias; an answer that is still good stays.
local function release(alias)
  redis.call('HDEL', alias, 'pending', 'since', 'priority', 'joined', 'uncounted', 'batch')
  local till = redis.call('HGET', alias, 'until')
  if till then
    redis.call('PEXPIREAT', alias, till)
  else
    redis.call('DEL', alias)
  end
end

-- Lets a batch that leaves a run to others pay for it no longer, from its next beginning on. What is replaced stands
-- nowhere else in the message: inside of a JSON string, the quotes would be escaped.
local function disown(alias, id, batch)
  if batch == '' or redis.call('HGET', alias, 'batch') ~= batch then
    return
  end
  redis.call('HDEL', alias, 'batch')
  local job = PREFIX .. 'job:' .. id
  local message = redis.call('HGET', job, 'message')
  if message then
    local pattern = '("batch": ?)"' .. string.gsub(batch, '%p', '%%%0') .. '"'
    redis.call('HSET', job, 'message', (string.gsub(message, pattern, '%1""', 1)))
  end
end
