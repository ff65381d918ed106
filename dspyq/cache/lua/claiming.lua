-- Shared by the scripts that claim a question.
-- Libraries: cache/claims, delivery/sleepers, experiments/state, experiments/sums.
-- Keys:
--   alias                 PREDICTION: of the question
-- Arguments:
--   id                    of the task that claims
--   flags                 r: ignore an answer; w: the caller is a worker, which waits only for a leased run; c: count
--                         this call; s: there are several Redis servers, and a bucket that has moved is not claimed here;
--                         m: this question's bucket has moved, and is marked so instead of a claim; l: look alone,
--                         claim nothing here
--   claim_seconds:number  how long a claim without a job record holds
--   priority:number       0 is the most urgent
--   queue                 the variant's
--   is_here               '1' where answers live in this Redis, else ''
--   gone                  task id of an answer found to be gone elsewhere, or ''
--   fence                 of a worker's run, '' for none
--   day                   label of the current day
--   batch                 of the caller, '' for none
--   seen                  version of the experiment's state that gave the call its variant, '' for none known, * where none
--                         does
--   exposure?             the call as its experiment counts it
--   tenant?               of the caller; where tenants share answers - for none
local FIELDS_OF_CLAIM = 5
local COUNTED = 'counted' -- in place of a hit's batch
local CLAIMS_LAST = 2 -- times as long as others leave them to their producers

-- Whether the question is to be claimed at another Redis. The mark keeps processes with an old list from a claim here.
local function has_moved()
  if string.find(flags, 'm', 1, true) then
    redis.call('SETBIT', MOVED_BUCKETS, bucket_of(alias), 1)
    return true
  end
  if string.find(flags, 'l', 1, true) then
    return true
  end
  return string.find(flags, 's', 1, true) and redis.call('GETBIT', MOVED_BUCKETS, bucket_of(alias)) == 1
end

-- Looks the question up, and claims it if it has neither an answer nor a run; its reply is that of claim.lua. The function
-- that puts its job, if there is one, gets the second it is, and runs before the claim: if it fails, nothing is claimed.
local function claim(put)
  local hold = claim_seconds * 1000
  local is_refresh = string.find(flags, 'r', 1, true)
  local by_worker = string.find(flags, 'w', 1, true)
  local counts = string.find(flags, 'c', 1, true)

  if not may_change(id, fence) then
    return { 'lost', id, '', 0, '' }
  end
  -- A call with an id of its own is counted when its job ends, however it is answered; it is noted at its first look,
  -- also where an earlier run of it died before.
  if by_worker and exposure ~= '' then
    local is_first = counts
    if fence ~= '' then
      is_first = redis.call('HSETNX', JOB .. id, 'exposed', 1) == 1
    end
    if is_first then
      expose(queue, id, exposure, id)
    end
  end
  local held = redis.call('HMGET', alias, 'answered', 'until', 'pending', 'since', 'priority', 'cost', 'batch')
  local answered, till, pending, since = held[1], tonumber(held[2] or 0), held[3], tonumber(held[4] or 0)
  local cost, owner, clock = tonumber(held[6] or 0), held[7] or '', now_microseconds()
  local time = math.floor(clock / 1000)

  local function counted(field)
    if counts then
      count(queue, { field, 1 })
    end
  end

  if gone ~= '' and counts then
    count(queue, { 'hits_redis', -1 })
    if answered == gone then
      avoided(day, queue, -cost, tenant)
    end
  end

  if answered and (not is_refresh or answered == id) then
    local result = ''
    if is_here == '1' then
      result = read_own('GET', RESULT .. answered)
    end
    if result and till > time and answered ~= gone then
      if counts then
        count(queue, { 'hits_redis', 1 })
        avoided(day, queue, cost, tenant)
      end
      local known = not by_worker and exposure ~= '' and is_counted(answered, id)
      return { 'hit', answered, result, till - time, known and COUNTED or '' }
    end
    redis.call('HDEL', alias, 'answered', 'until', 'cost')
  end

  local newer = other_state(queue, seen)
  if newer then
    return { 'stale', newer[1], newer[2], 0, '' }
  end

  local is_asked_again = pending == id
  local is_owner = is_asked_again and (by_worker or batch == owner)
  if pending and not is_owner then
    local has_job = redis.call('EXISTS', JOB .. pending) == 1
    local is_alive = has_job or time - since < hold
    local is_leased = by_worker and redis.call('ZSCORE', LEASES, pending)
    if by_worker and not is_leased and is_alive then -- taken over here, but not for a run elsewhere
      is_alive = has_moved()
    end
    if is_alive then
      if not is_asked_again then
        counted('joined')
        if not by_worker and exposure ~= '' then
          expose(queue, pending, exposure, id)
        end
      end
      if by_worker and not is_leased and owner ~= '' and batch == '' then
        wake_for_live(alias, pending)
      end
      if by_worker then
        return { is_leased and 'join' or 'queued', pending, '', 0, owner }
      end
      redis.call('HINCRBY', alias, 'joined', is_asked_again and 0 or 1)
      if owner ~= '' and batch == '' then
        wake_for_live(alias, pending)
      end
      if tenant ~= '' and tenant ~= (redis.call('HGET', alias, 'tenant') or '-') then
        redis.call('HSET', alias, 'others', 1)
      end
      if priority < tonumber(held[5]) then
        redis.call('HSET', alias, 'priority', priority)
      elseif has_job then
        return { 'join', pending, '', 0, owner }
      end
      return { 'urge', pending, '', 0, owner }
    end
    if not has_job and time - since >= hold then -- nothing will answer it
      fail_exposures(queue, pending, 0)
    end
  end

  if not is_owner and has_moved() then
    return { 'moved', id, '', 0, '' }
  end

  -- Callers that joined this run before its question was invalidated or taken over is not counted any more.
  local had_job
  if put then
    local _, existed = put(clock / 1000000)
    had_job = existed
  else
    had_job = not is_owner and (by_worker or redis.call('EXISTS', JOB .. id) == 1)
  end
  if not is_owner then
    local added =
      redis.call('HSET', alias, 'queue', queue, 'pending', id, 'since', whole(time), 'priority', priority, 'joined', 0)
    if batch ~= '' then
      redis.call('HSET', alias, 'batch', batch)
    elseif owner ~= '' then
      redis.call('HDEL', alias, 'batch')
    end
    if tenant ~= '' then
      redis.call('HDEL', alias, 'tenant', 'others')
    end
    if tenant ~= '' and tenant ~= '-' then
      redis.call('HSET', alias, 'tenant', tenant)
    end
    if had_job and not (by_worker and counts) then
      redis.call('HSET', alias, 'uncounted', 1)
    elseif pending then
      redis.call('HDEL', alias, 'uncounted')
    end
    if had_job or put then
      if added < FIELDS_OF_CLAIM then -- a new key has no end
        redis.call('PERSIST', alias)
      end
    else -- its producer may die before it puts the job, which is what makes the claim last
      redis.call('PEXPIRE', alias, whole(math.max(CLAIMS_LAST * hold, till - time)))
    end
    counted('misses')
    if not by_worker and exposure ~= '' then
      expose(queue, id, exposure, id)
    end
  end
  return { 'claim', id, '', 0, batch }
end
