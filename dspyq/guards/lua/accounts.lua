-- Shared by the scripts on budgets.
-- Amounts are whole nano-dollars, times seconds of Redis's own clock.
--
--   dspy:v1:budget:<scope>:<period>:<label>  an account, a hash: settled, held, warned (the highest percentage of its
--                                            limit that was warned of, and of which limit). The scope is all,
--                                            program:<program> or variant:<program>.<variant>, or with a payer
--                                            <payer>:<program> in place of its variant's, and tenant:<tenant> of a
--                                            tenant's call; the period daily or monthly; the label a day or month
--   dspy:v1:budget:batch:<id>                the account of a batch, a hash: opened (when), its limits (max_nano_usd,
--                                            budget_share, rate_share), lane, is_in_rest (there once its money
--                                            buys too few calls at once for that), settled, held, and its books' counters
--   dspy:v1:budget:batch:<id>:daily:<day>    what the batch settled and holds in a day
--   dspy:v1:budget:batch:<id>:calls          its calls that are on no row yet, a hash by task id: see note
--   dspy:v1:budget:hold:<call>               a call, a hash: state, bound, day, month, program, variant, model, batch
--                                            and payer where it has one, held_in. The state is held; or unknown, where
--                                            its lease ran out and its bound was charged. Of a settled call only the word
--                                            settled is kept, as a string; by 0.1 as the state. The payer is shadow, of
--                                            a shadow run, or judge, of a score function. What it is held in is one digit
--                                            for each limit of call_limits.lua, 1 for those with a limit; of a tenant's
--                                            call eight, and the tenant behind a space
--   dspy:v1:budget:leases                    the calls that are held: sorted set by the second their lease runs out
--   dspy:v1:budget:tenant-leases             those of tenants: a worker without tenants would free their bounds in all
--                                            accounts but the tenant's
--   dspy:v1:budget-limits                    limits that an operator set in place of the configured ones, a hash by
--                                            '<scope> <period>'; of tenants also '<scope> rate', model calls a second and
--                                            how many may begin at once
--   dspy:v1:budget-statistics                what was unusual, a hash of counters
--   dspy:v1:costs:<day>                      the books of a day, a hash: '<program>.<variant> <model> <counter>',
--                                            of a call with a payer behind '<payer>:'
--   dspy:v1:tenants                          set of the tenants that ever called a model, or have a limit
--   dspy:v1:tenant-costs:<tenant>:<month>    a tenant's books, a hash: '<day> <program>.<variant> <model> <counter>'
--   dspy:v1:tenant-rate:<tenant>             a tenant's turns, a hash, in microseconds: requests_at, when the next call is
--                                            due if none may begin ahead of its time; come_back_at, when the next of the
--                                            refused ones is to ask again
-- The most jobs of a batch whose calls are noted: more than are ever in flight, and than workers are killed under.
local MOST_NOTED = 100000
-- The accounts that a call of no tenant may be held in.
local HELD_IN_ALL, HELD = '111111', string.byte('1')

local function seconds(time)
  return string.format('%.3f', time)
end

-- The amount in a field; nil if the field is damaged.
local function amount_of(text)
  local amount = tonumber(text or 0)
  return amount and math.abs(amount) < 1e18 and amount or nil
end

-- Adds to a counter and returns the sum. A damaged one stays as it is, and is counted: a hold is refused by it, and an
-- error here would leave a call half settled at each repetition. The amount may be given as a text too.
local function increment(key, field, amount, text)
  local sum = redis.pcall('HINCRBY', key, field, text or whole(amount))
  if type(sum) == 'number' then
    return sum
  end
  redis.pcall('HINCRBY', BUDGET_STATISTICS, 'damaged', 1)
end

local function hold_key(id)
  return BUDGET_HOLD .. id
end

-- The narrowest scope of a call.
local function own_scope(call)
  return call.payer and call.payer .. ':' .. call.program or 'variant:' .. call.program .. '.' .. call.variant
end

-- The accounts of a call in a period, from the widest; its tenant's is the last.
local function account_keys(call, period, label)
  local tail = ':' .. period .. ':' .. label
  return {
    BUDGET .. 'all' .. tail,
    BUDGET .. 'program:' .. call.program .. tail,
    BUDGET .. own_scope(call) .. tail,
    call.tenant and BUDGET .. 'tenant:' .. call.tenant .. tail, -- nil for none
  }
end

-- The leases among which a call's is.
local function leases_of(call)
  return call.tenant and TENANT_LEASES or BUDGET_LEASES
end

-- Keeps of a call only that it is settled, so that a repetition of its scripts changes nothing.
local function mark_settled(id)
  redis.call('SET', hold_key(id), 'settled', 'EX', SECONDS_SETTLED)
end

local function is_marked_settled(id)
  return redis.pcall('GET', hold_key(id)) == 'settled'
end

-- The call as it was held, or nil.
local function read_hold(id)
  local held =
    redis.pcall('HMGET', hold_key(id), 'state', 'bound', 'day', 'month', 'program', 'variant', 'model', 'batch', 'held_in',
      'payer')
  if held.err and is_marked_settled(id) then
    return { state = 'settled' }
  end
  local is_whole = held[2] and amount_of(held[2]) and held[3] and held[4] and held[5] and held[6] and held[7]
  if held.err or held[1] and held[1] ~= 'settled' and not is_whole then -- damaged
    redis.call('DEL', hold_key(id))
    redis.pcall('HINCRBY', BUDGET_STATISTICS, 'damaged', 1)
    return nil
  end
  if not held[1] then
    return nil
  end
  return {
    state = held[1],
    bound = tonumber(held[2]),
    day = held[3],
    month = held[4],
    program = held[5],
    variant = held[6],
    model = held[7],
    batch = held[8] or nil,
    payer = held[10] or nil,
    tenant = string.match(held[9] or '', ' (.+)'),
    held_in = held[9] or HELD_IN_ALL, -- a worker of 0.1 held it in each account
  }
end

-- Adds to the settled or held amount of an account. A new one gets an end, also one that was deleted since the call was
-- held.
local function add(key, field, amount, lifetime, text)
  local sum = amount ~= 0 and increment(key, field, amount, text)
  if not sum then
    return
  end
  if sum < 0 then
    redis.call('HSET', key, field, 0) -- reset by an operator meanwhile
  end
  if sum < 0 or sum == amount then
    redis.call('EXPIRE', key, lifetime, 'NX')
  end
end

local function batch_key(batch)
  return BATCH_ACCOUNT .. batch
end

local function batch_day_key(call)
  return batch_key(call.batch) .. ':daily:' .. call.day
end

-- Notes a call of a batch, its amount and the reason, for the row of its job. The reason is ^ while it is held, = if
-- billed, ~ if its bill is unknown, ? if its lease expired; without a reason the note is deleted.
-- The calls of a job are one text: '<call><reason><nano-dollars>,<prompt tokens>,<completion tokens>', separated by
-- spaces.
local function note(batch, id, reason, amount, prompt_tokens, completion_tokens)
  local key = batch_key(batch) .. ':calls'
  local job, call = string.match(id, '^([^:]*):(.*)$')
  local noted, others = redis.pcall('HGET', key, job), {}
  if type(noted) == 'table' then -- damaged
    redis.pcall('HINCRBY', BUDGET_STATISTICS, 'damaged', 1)
    return
  end
  for entry in string.gmatch(noted or '', '%S+') do
    if string.match(entry, '^[^%^=~?]*') ~= call then
      others[#others + 1] = entry
    end
  end
  if reason then
    local tokens = whole(prompt_tokens or 0) .. ',' .. whole(completion_tokens or 0)
    others[#others + 1] = call .. reason .. whole(amount) .. ',' .. tokens
  end
  if #others == 0 then
    redis.call('HDEL', key, job)
  elseif noted or redis.call('HLEN', key) < MOST_NOTED then
    redis.call('HSET', key, job, table.concat(others, ' '))
    redis.call('EXPIRE', key, SECONDS_OF_BOOKS)
  end
end

-- Adds to the settled and held amounts in both accounts of the call's batch.
local function move_in_batch(call, settled, held)
  for key, kept in pairs({ [batch_key(call.batch)] = SECONDS_OF_BOOKS, [batch_day_key(call)] = SECONDS_OF_BATCH_DAY }) do
    add(key, 'settled', settled, kept)
    add(key, 'held', held, kept)
    redis.call('EXPIRE', key, kept)
  end
end

-- Adds to the settled amounts in each account of the call, and to the held ones in each that it was held in.
local function move(call, settled, held)
  if call.batch then
    move_in_batch(call, settled, held)
  end
  local text = whole(settled) -- once: it takes as long as writing it
  local function move_in(keys, first, lifetime)
    for index, key in ipairs(keys) do
      add(key, 'settled', settled, lifetime, text)
      if held ~= 0 and string.byte(call.held_in, first + index) == HELD then
        add(key, 'held', held, lifetime)
      end
    end
  end
  local daily = account_keys(call, 'daily', call.day)
  move_in(daily, 0, SECONDS_OF_DAY)
  move_in(account_keys(call, 'monthly', call.month), #daily, SECONDS_OF_MONTH)
end

-- Writes into the books of the call's day, and its batch's and its tenant's, given as a table of counters and amounts.
local function book(call, counters)
  local function enter(key, prefix)
    for counter, amount in pairs(counters) do
      if amount ~= 0 and increment(key, prefix .. counter, amount) == amount then -- it may be a new one
        redis.call('EXPIRE', key, SECONDS_OF_BOOKS)
      end
    end
  end
  if call.batch then
    enter(batch_key(call.batch), '')
  end
  local line = call.program .. '.' .. call.variant .. ' ' .. call.model .. ' '
  enter(COSTS .. call.day, call.payer and call.payer .. ':' .. line or line)
  if call.tenant then
    enter(TENANT_COSTS .. call.tenant .. ':' .. call.month, call.day .. ' ' .. line)
  end
end

local function count(counter)
  increment(BUDGET_STATISTICS, counter, 1)
end
