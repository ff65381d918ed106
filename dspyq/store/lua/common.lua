-- Before every script.

-- The arguments from a position on.
local function all_from(first)
  local rest = {}
  for index = first, #ARGV do
    rest[index - first + 1] = ARGV[index]
  end
  return rest
end

-- Redis's own clock.
local function now_microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function now_milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function now_seconds()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1000000
end

local function whole(number)
  return string.format('%.0f', number + 0) -- + 0 makes 0 of -0, which HINCRBY refuses
end

-- True if a run is still its job's latest.
local function holds(id, fence)
  return redis.call('HGET', JOB .. id, 'fence') == fence
end

-- True if a run may still change stored state. A run without a job record has no fence, and is not checked.
local function may_change(id, fence)
  return fence == '' or holds(id, fence)
end

-- Reads a key, or nil where it holds a value of another type, which another program wrote.
local function read_own(command, key, ...)
  local found = redis.pcall(command, key, ...)
  if type(found) ~= 'table' or not found.err then
    return found
  end
  if string.find(found.err, 'WRONGTYPE', 1, true) then
    return nil
  end
  return redis.call(command, key, ...)
end
