#!lua flags=allow-oom
-- Withdraws one caller's interest in runs.
-- Keys: their aliases.
-- Arguments: '1' where the caller chose the ids, '' where they are the questions'; the caller's batch, '' for none; then
--   the task id of each.
-- Reply: for each, 1 where nobody waits for the run any more: then the question is free; 0 where others do or may, or it
--   is no run. A batch that leaves its own claim to others does not pay for it, unless it runs already.
local is_own, batch = ARGV[1] == '1', ARGV[2]

local function withdraw(alias, id)
  local held = redis.call('HMGET', alias, 'pending', 'joined', 'uncounted')
  if held[1] ~= id then
    return is_own and 1 or 0
  end
  if tonumber(held[2]) > 0 then
    redis.call('HINCRBY', alias, 'joined', -1)
    disown(alias, id, batch)
    return 0
  end
  if held[3] and not is_own then
    disown(alias, id, batch)
    return 0
  end
  release(alias)
  return 1
end

local replies = {}
for index, alias in ipairs(KEYS) do
  replies[index] = withdraw(alias, ARGV[index + 2])
end
return replies
