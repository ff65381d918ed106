#!lua flags=allow-oom
-- Takes questions back for a caller, as if it had not asked them: those that no run answers or may have paid for.
-- Behind both libraries, of jobs and of aliases.
-- Keys: the aliases.
-- Arguments: the caller's batch, '' for none; then the task id of each.
-- Reply: for each, 1 where it was taken back, and its job ended where nobody else waits for it; 0 where nothing was
--   changed, for its answer is there or still to come.
local batch = ARGV[1]

-- Whether the job waits for a first run, or for one after runs that gave it back unpaid; or is yet to be put. A run
-- whose lease ran out may have paid, and may still take its job back.
local function is_unpaid(id)
  local job = redis.call('HMGET', job_key(id), 'queue', 'lost')
  local queue, lost = job[1], tonumber(job[2] or 0)
  if not queue then
    return true
  end
  if lost > 0 then
    return false
  end
  local waits = redis.call('ZSCORE', queue_key(queue), id) or redis.call('ZSCORE', DELAYED, id)
  return waits and redis.call('EXISTS', PREFIX .. 'calls:' .. id) == 0
end

local function recall(alias, id)
  local held = redis.call('HMGET', alias, 'pending', 'joined', 'uncounted', 'queue')
  local joined, queue = tonumber(held[2] or 0), held[4]
  if held[1] ~= id or not is_unpaid(id) then
    return 0
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
for index, alias in ipairs(KEYS) do
  replies[index] = recall(alias, ARGV[index + 1])
end
return replies
