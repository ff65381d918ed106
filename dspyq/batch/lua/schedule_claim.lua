-- Adds times of a batch that have come, and leases the oldest waiting one if none is running.
-- Libraries: batch/schedule.
-- Arguments:
--   name                  of the batch
--   token                 which no other claim has
--   runner                for people
--   lease_seconds:number  of the claim
--   catch_up:number       how many may wait
--   max_losses:number     how often a time may be lost
--   seen:number           the second up to which times are known now
--   come...               label and second of each time that is new
-- Reply: the label of the leased time, or nil.
local present = now_seconds()

local known_until = tonumber(redis.call('GET', seen_key(name)) or 0)
for index = 1, #come, 2 do
  local label, due = come[index], tonumber(come[index + 1])
  if due > known_until and redis.call('ZADD', times_key(name), 'NX', due, label) == 1 then
    redis.call('HSET', time_key(name, label), 'state', 'pending')
  end
end
if seen > known_until then
  redis.call('SET', seen_key(name), seconds(seen))
end

local waiting, is_running = {}, false
local labels = redis.call('ZRANGE', times_key(name), 0, -1)
for index, label in ipairs(labels) do
  local time = time_key(name, label)
  local about = redis.call('HMGET', time, 'state', 'lease', 'token')
  if about[1] == 'running' and about[3] == token then
    return label -- the script is repeated
  end
  if about[1] == 'running' and tonumber(about[2]) <= present then
    lose(time, max_losses)
    about[1] = redis.call('HGET', time, 'state')
  end
  if about[1] == 'running' then
    is_running = true
  elseif about[1] == 'pending' then
    waiting[#waiting + 1] = label
  elseif #labels - index >= KEPT then
    redis.call('DEL', time)
    redis.call('ZREM', times_key(name), label)
  end
end

while #waiting > catch_up do
  redis.call('HSET', time_key(name, table.remove(waiting, 1)), 'state', 'skipped')
end
local label = waiting[1]
if is_running or not label then
  return nil
end
local time = time_key(name, label)
local claim = { 'token', token, 'runner', runner, 'started', seconds(present) }
redis.call('HDEL', time, 'exit_code', 'note', 'ended')
redis.call('HSET', time, 'state', 'running', 'lease', seconds(present + lease_seconds), unpack(claim))
return label
