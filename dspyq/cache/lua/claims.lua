-- Shared by the scripts on claims.
-- Libraries: store/aliases.

-- Returns the bucket of a question: what its hash ends with (dspyq/store/spines.py).
local function bucket_of(alias)
  return tonumber(string.sub(alias, -2), 16)
end

-- Adds to a variant's statistics, given as pairs of field and amount.
local function count(queue, counts)
  for index = 1, #counts, 2 do
    if counts[index + 1] ~= '0' then
      redis.call('HINCRBY', STATISTICS .. queue, counts[index], counts[index + 1])
    end
  end
end

-- Returns one of such amounts, 0 where it is not among them.
local function amount_of(counts, field)
  for index = 1, #counts, 2 do
    if counts[index] == field then
      return tonumber(counts[index + 1])
    end
  end
  return 0
end

-- Adds the nano-dollars saved by a stored answer to the savings of a day, and to those of a tenant; '' and - are none.
local function avoided(day, queue, amount, tenant)
  local key = SAVINGS .. day
  if amount ~= 0 and redis.call('HINCRBY', key, queue .. ' avoided_nano_usd', whole(amount)) == amount then
    redis.call('EXPIRE', key, SECONDS_OF_BOOKS)
  end
  if amount ~= 0 and tenant ~= '' and tenant ~= '-' then
    local own = TENANT_SAVINGS .. tenant .. ':' .. string.sub(day, 1, 7)
    if redis.call('HINCRBY', own, day, whole(amount)) == amount then
      redis.call('EXPIRE', own, SECONDS_OF_BOOKS)
    end
  end
end

-- Ends the payment of a batch that leaves a run to others, from its next beginning on.
local function disown(alias, id, batch)
  if batch == '' or redis.call('HGET', alias, 'batch') ~= batch then
    return
  end
  redis.call('HDEL', alias, 'batch')
  if redis.call('EXISTS', JOB .. id) == 1 then
    redis.call('HSET', JOB .. id, 'disowned_by', batch)
  end
end
