-- Turns of jobs, so that tenants share the workers of a queue evenly, whatever the number of their jobs.
-- Libraries: delivery/jobs.
--
-- Without tenants a job's turn is its sequence: first come, first served. From the first job of a tenant on sequences
-- begin at 2^40, which no deployment reaches by counting; so that is known wherever one is drawn, at no cost. From then
-- on jobs without a tenant count as one tenant's, and turns are start tags of start-time fair queueing: a tenant's next
-- turn is one behind its last, and none is before the first that waits. A tenant without waiting jobs is so among the
-- next, and in the rest of the queue the jobs of all alternate. A job keeps its turn for good.
-- Nothing is read where jobs are taken, and no turn is behind its job's sequence: so of an empty queue, where the next
-- turn is the sequence, nothing is kept.
-- P. Goyal, H. Vin, H. Cheng: Start-time Fair Queueing, IEEE/ACM Transactions on Networking 5(5), 1997.
local SEQUENCES_WITH_TENANTS = 2 ^ 40

-- The first turn of a tenant's new jobs, '' for none, given the first of their sequences and their number; theirs are
-- consecutive. Jobs that waited in a queue before the first tenant came are ahead of all later ones without a tenant.
local function fair_turn(queue, priority, tenant, sequence, number)
  if sequence < SEQUENCES_WITH_TENANTS then
    sequence = redis.call('INCRBY', SEQUENCE, SEQUENCES_WITH_TENANTS) - number + 1
  end
  local key, waiting = TURNS .. queue .. ':' .. whole(priority), QUEUE .. queue
  local lowest, above = whole(priority * SEQUENCES_PER_PRIORITY), '(' .. whole((priority + 1) * SEQUENCES_PER_PRIORITY)
  local next_up = redis.call('ZRANGE', waiting, lowest, above, 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  local turn = sequence
  if next_up[1] then
    local last = redis.call('HGET', key, tenant)
    if not last and redis.call('EXISTS', key) == 0 then
      local latest = redis.call('ZRANGE', waiting, above, lowest, 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')
      local turn_of_latest = whole(latest[2] % SEQUENCES_PER_PRIORITY)
      redis.call('HSET', key, '', turn_of_latest)
      last = tenant == '' and turn_of_latest
    end
    turn = math.max(next_up[2] % SEQUENCES_PER_PRIORITY, (tonumber(last or -1) or -1) + 1)
  else
    redis.call('DEL', key)
  end
  redis.call('HSET', key, tenant, whole(turn + number - 1))
  redis.call('EXPIRE', key, SECONDS_OF_TURNS)
  return turn
end
