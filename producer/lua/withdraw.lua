-- Withdraws one caller's interest in a run.
-- Keys: its alias.
-- Arguments: task id.
-- Reply: 1 where nobody waits for the run any more: then the question is free; 0 where others do, or it is no run.
local alias, id = KEYS[1], ARGV[1]

local held = redis.call('HMGET', alias, 'pending', 'joined')
if held[1] ~= id then
  return 0
end
if tonumber(held[2]) > 0 then
  redis.call('HINCRBY', alias, 'joined', -1)
  return 0
end
release(alias)
return 1
