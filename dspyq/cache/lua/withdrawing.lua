-- Shared by the scripts that take a caller back from a run.
-- Libraries: cache/claims, experiments/sums.

-- Withdraws one caller, under whose id an experiment counts its call ('' for none), from a run; ``is_callers`` where the
-- caller chose the run's id, where others are the question's. Returns 1 if no caller waits for the run any more: then the
-- question is free; 0 if others do or may, or it is no run. A batch that leaves its own claim to others does not pay for it,
-- unless it runs already.
local function withdraw(alias, id, caller, is_callers, batch)
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
