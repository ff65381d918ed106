#!lua flags=allow-oom,no-writes
-- Counts the unfinished jobs of queues, and reads the age of the oldest waiting one.
-- Libraries: delivery/jobs.
-- Arguments:
--   limit:number  the most delayed, and the most leased, jobs that are looked at one by one
--   names...      of the queues
-- Reply: for each of these queues that has jobs, and for all others together where they have any, a list: {its position
--   among the names, from 1 on, the others' being behind the last; delayed; leased; age of the oldest waiting job in whole
--   milliseconds; then pairs of priority and number of waiting jobs}. Where there are more jobs than are looked at, delayed
--   and leased are the share that those looked at have in the true total.
local now = now_seconds()

local position, last = {}, #names + 1
for index, name in ipairs(names) do
  position[name] = index
end
local found = {}
for index = 1, last do
  found[index] = { 0, 0, 0 }
end

-- The position of a queue; a version's counts as its variant's as long as a worker serves it.
local function position_of(name)
  local base = string.match(name, VERSION_PATTERN)
  if base and redis.call('ZSCORE', SERVED, name) then
    return position[base] or last
  end
  return position[name] or last
end

-- Counts the jobs of a place that is common to all queues.
local function share(place, column)
  local total = redis.call('ZCARD', place)
  local ids = redis.call('ZRANGE', place, 0, limit - 1)
  local counts = {}
  for _, id in ipairs(ids) do
    local index = position_of(redis.call('HGET', JOB .. id, 'queue') or '')
    counts[index] = (counts[index] or 0) + 1
  end
  for index, count in pairs(counts) do
    found[index][column] = math.floor(count * total / #ids + 0.5)
  end
end

-- Counts the waiting jobs of a queue by priority; the first of each has waited longest, or of its tenant's jobs.
local function waiting(name, result)
  local by_priority, key = {}, QUEUE .. name
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  while first[1] do
    local priority = math.floor(first[2] / SEQUENCES_PER_PRIORITY)
    local next_score = string.format('%.0f', (priority + 1) * SEQUENCES_PER_PRIORITY)
    by_priority[priority] = redis.call('ZCOUNT', key, first[2], '(' .. next_score)
    local put_at = tonumber(redis.call('HGET', JOB .. first[1], 'put_at') or now)
    result[3] = math.max(result[3], math.floor((now - put_at) * 1000))
    first = redis.call('ZRANGEBYSCORE', key, next_score, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  end
  return by_priority
end

share(DELAYED, 1)
share(LEASES, 2)
local waiting_of = {}
for _, name in ipairs(redis.call('SMEMBERS', QUEUES)) do -- every queue that has jobs is there
  local index = position_of(name)
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
local some = {} -- of hundreds of queues few have jobs
for index, each in ipairs(found) do
  if each[1] > 0 or each[2] > 0 or #each > 3 then
    table.insert(each, 1, index)
    some[#some + 1] = each
  end
end
return some
