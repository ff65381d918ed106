#!lua flags=allow-oom,no-writes
-- Counts the unfinished jobs of queues, and tells how long their oldest one waits.
-- Keys: see jobs.lua.
-- Arguments: the most delayed, and the most leased, jobs that are looked at one by one; then the names of the queues.
-- Reply: for each of these queues, and last for all others together, a list: {delayed, leased, age of the oldest waiting
--   job in whole milliseconds, then pairs of priority and number of waiting jobs}. Where there are more jobs than are
--   looked at, delayed and leased are the share that those looked at have in the true total.
local limit = tonumber(ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6

local position, last = {}, #ARGV
for index = 2, #ARGV do
  position[ARGV[index]] = index - 1
end
local found = {}
for index = 1, last do
  found[index] = { 0, 0, 0 }
end

-- Counts the jobs of a place that is common to all queues.
local function share(place, column)
  local total = redis.call('ZCARD', place)
  local ids = redis.call('ZRANGE', place, 0, limit - 1)
  local counts = {}
  for _, id in ipairs(ids) do
    local index = position[redis.call('HGET', job_key(id), 'queue')] or last
    counts[index] = (counts[index] or 0) + 1
  end
  for index, count in pairs(counts) do
    found[index][column] = math.floor(count * total / #ids + 0.5)
  end
end

-- Counts the waiting jobs of a queue by priority; the first of each has waited longest.
local function waiting(name, result)
  local by_priority, key = {}, queue_key(name)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  while first[1] do
    local priority = math.floor(first[2] / SEQUENCES_PER_PRIORITY)
    local next_score = string.format('%.0f', (priority + 1) * SEQUENCES_PER_PRIORITY)
    by_priority[priority] = redis.call('ZCOUNT', key, first[2], '(' .. next_score)
    local put_at = tonumber(redis.call('HGET', job_key(first[1]), 'put_at') or now)
    result[3] = math.max(result[3], math.floor((now - put_at) * 1000))
    first = redis.call('ZRANGEBYSCORE', key, next_score, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  end
  return by_priority
end

share(DELAYED, 1)
share(LEASES, 2)
local names = { unpack(ARGV, 2) }
for _, name in ipairs(redis.call('SMEMBERS', QUEUES)) do
  if not position[name] then
    names[#names + 1] = name
  end
end
local waiting_of = {}
for _, name in ipairs(names) do
  local index = position[name] or last
  waiting_of[index] = waiting_of[index] or {}
  for priority, number in pairs(waiting(name, found[index])) do
    waiting_of[index][priority] = (waiting_of[index][priority] or 0) + number
  end
end
for index, by_priority in pairs(waiting_of) do
  for priority, number in pairs(by_priority) do
    table.insert(found[index], priority)
    table.insert(found[index], number)
  end
end
return found
