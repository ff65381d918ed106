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

-- The last turn of a tenant, and all that others have, in a queue where jobs wait; nil for none. Jobs that waited there
-- before the first tenant came are ahead of all later ones without a tenant.
local function last_turn(key, tenant, waiting, range)
  local last = redis.call('HGET', key, tenant)
  if not last and redis.call('EXISTS', key) == 0 then
    local highest = redis.call('ZRANGE', waiting, range[2], range[1], 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')
    local turn = whole(highest[2] % SEQUENCES_PER_PRIORITY)
    redis.call('HSET', key, '', turn)
    last = tenant == '' and turn
  end
  return last and tonumber(last) or -1
end

-- The first of some consecutive turns in a queue, given their first sequence.
local function first_turn(queue, priority, tenant, sequence, number)
  local key, waiting = TURNS .. queue .. ':' .. whole(priority), QUEUE .. queue
  local range = { whole(priority * SEQUENCES_PER_PRIORITY), '(' .. whole((priority + 1) * SEQUENCES_PER_PRIORITY) }
  local next_up = redis.call('ZRANGE', waiting, range[1], range[2], 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  local turn = sequence
  if next_up[1] then
    local of_next_up = next_up[2] % SEQUENCES_PER_PRIORITY
    turn = math.max(of_next_up, last_turn(key, tenant, waiting, range) + 1)
  else
    redis.call('DEL', key)
  end
  redis.call('HSET', key, tenant, whole(turn + number - 1))
  redis.call('EXPIRE', key, SECONDS_OF_TURNS)
  return turn
end

-- Draws consecutive turns for new jobs of a tenant, '' for none, and returns the first.
local function draw_turns(queue, priority, tenant, number)
  local last = redis.call('INCRBY', SEQUENCE, number)
  if tenant ~= '' and last < SEQUENCES_WITH_TENANTS then
    last = redis.call('INCRBY', SEQUENCE, SEQUENCES_WITH_TENANTS)
  end
  local sequence = last - number + 1
  return last < SEQUENCES_WITH_TENANTS and sequence or first_turn(queue, priority, tenant, sequence, number)
end
