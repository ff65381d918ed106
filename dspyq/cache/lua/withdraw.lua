#!lua flags=allow-oom
-- Withdraws one caller from runs.
-- Libraries: cache/claims, experiments/sums.
-- Keys:
--   aliases...  PREDICTION: of the questions
-- Arguments:
--   is_own      '1' where the caller chose the ids, '' where they are the questions'
--   batch       of the caller, '' for none
--   asked...    of each the task, and the id under which an experiment counts the call, '' for none
-- Reply: for each, 1 if no caller waits for the run any more: then the question is free; 0 if others do or may, or it
--   is no run. A batch that leaves its own claim to others does not pay for it, unless it runs already.
local is_callers = is_own == '1'

local function withdraw(alias, id, caller)
  if caller ~= '' then
    unexpose(id, caller)
  end
  local held = redis.call('HMGET', alias, 'pending', 'joined', 'uncounted')
  if held[1] ~= id then
    return is_callers and 1 or 0
  end
  if tonumber(held[2]) > 0 then
    redis.call('HINCRBY', alias, 'joined', -1)
    disown(alias, id, batch)
    return 0
  end
  if held[3] and not is_callers then
    disown(alias, id, batch)
    return 0
  end
  release(alias)
  return 1
end

local replies = {}
for index, alias in ipairs(aliases) do
  replies[index] = withdraw(alias, asked[2 * index - 1], asked[2 * index])
end
return replies
