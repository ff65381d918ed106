-- Lets a time that has failed or was skipped wait for its turn again.
-- Keys: see schedule.lua.
-- Arguments: name; label.
-- Reply: 1, or 0 where it is in another state, or unknown.
local time = time_key(ARGV[1], ARGV[2])
local state = redis.call('HGET', time, 'state')

if state ~= 'failed' and state ~= 'skipped' then
  return 0
end
redis.call('HDEL', time, 'token', 'losses')
redis.call('HSET', time, 'state', 'pending')
return 1
