-- Withdraws one caller's interest in a run.
-- Keys: its alias.
-- Arguments: task id; '1' where the caller chose it, '' where it is the question's.
-- Reply: 1 where nobody waits for the run any more: then the question is free; 0 where others do or may, or it is no run.
local alias, id, is_own = KEYS[1], ARGV[1], ARGV[2] == '1'

local held = redis.call('HMGET', alias, 'pending', 'joined', 'uncounted')
if held[1] ~= id then
  return is_own and 1 or 0
end
if tonumber(held[2]) > 0 then
  redis.call('HINCRBY', alias, 'joined', -1)
  return 0
end
if held[3] and not is_own then
  return 0
end
release(alias)
return 1
