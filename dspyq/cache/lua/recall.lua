#!lua flags=allow-oom
-- Recalls questions of a caller without a trace, except those that a run answers or may have paid for.
-- Libraries: delivery/jobs, cache/claims, experiments/sums.
-- Keys:
--   aliases...  PREDICTION: of the questions
-- Arguments:
--   batch       of the caller, '' for none
--   asked...    of each the task, and the id under which an experiment counts the call, '' for none
-- Reply: for each, 1 if it was recalled, and its job ended if no other caller waits for it; 0 if nothing was changed,
--   because its answer is there or still to come.

-- True if the job waits for its first run, or only had runs that returned it unpaid, or is not put yet. A run with an
-- expired lease may have paid, and may still take its job back.
local function is_unpaid(id)
  local job = redis.call('HMGET', JOB .. id, 'queue', 'lost', 'shipped')
  local queue, lost = job[1], tonumber(job[2] or 0)
  if not queue then
    return true
  end
  if lost > 0 or tonumber(job[3] or 0) > 0 then -- what is at a provider is paid
    return false
  end
  local waits = redis.call('ZSCORE', QUEUE .. queue, id) or redis.call('ZSCORE', DELAYED, id)
  return waits and redis.call('EXISTS', CALLS .. id) == 0
end

local function recall(alias, id, caller)
  local held = redis.call('HMGET', alias, 'pending', 'joined', 'uncounted', 'queue')
  local joined, queue = tonumber(held[2] or 0), held[4]
  if held[1] ~= id or not is_unpaid(id) then
    return 0
  end
  if caller ~= '' then
    unexpose(id, caller)
  end
  if joined > 0 then
    redis.call('HINCRBY', alias, 'joined', -1)
    count(queue, { 'joined', -1 })
    disown(alias, id, batch)
  elseif held[3] then
    disown(alias, id, batch)
  else
    count(queue, { 'misses', -1 })
    release(alias)
    leave(id)
    erase(id)
  end
  return 1
end

local replies = {}
for index, alias in ipairs(aliases) do
  replies[index] = recall(alias, asked[2 * index - 1], asked[2 * index])
end
return replies
