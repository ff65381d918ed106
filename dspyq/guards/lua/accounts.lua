-- Shared by the scripts on budgets. Keys are built inside the scripts, so this is for one Redis, not for Redis Cluster.
-- Amounts are whole nano-dollars, times seconds of Redis's own clock.
--
--   dspy:v1:budget:<scope>:<period>:<label>  an account, a hash: settled, held, warned (the highest percentage of its
--                                            limit that was warned of, and of which limit). The scope is all,
--                                            program:<program> or variant:<program>.<variant>; the period daily or
--                                            monthly; the label a day or month
--   dspy:v1:budget:batch:<id>                the account of a batch, a hash: opened (when), its limits (max_nano_usd,
--                                            budget_share, rate_share), settled, held, and its books' counters
--   dspy:v1:budget:batch:<id>:daily:<day>    what the batch settled and holds in a day
--   dspy:v1:budget:batch:<id>:calls          its calls that are on no row yet, a hash by task id: see note
--   dspy:v1:budget:hold:<call>               a call, a hash: state, bound, day, month, program, variant, model, batch
--                                            where it has one. The state is held; unknown, where its lease ran out and
--                                            its bound was charged; or settled, then nothing else is kept
--   dspy:v1:budget:leases                    the calls that are held: sorted set by the second their lease runs out
--   dspy:v1:budget-limits                    limits that an operator set in place of the configured ones, a hash by
--                                            '<scope> <period>'
--   dspy:v1:budget-statistics                what was unusual, a hash of counters
--   dspy:v1:costs:<day>                      the books of a day, a hash: '<program>.<variant> <model> <counter>'
local PREFIX = 'dspy:v1:'
local LIMITS, LEASES = PREFIX .. 'budget-limits', PREFIX .. 'budget:leases'
local STATISTICS = PREFIX .. 'budget-statistics'
local SECONDS_AFTER_PERIOD = 7 * 86400
local SECONDS_OF_BATCH_DAY = 9 * 86400
local SECONDS_OF_BOOKS = 400 * 86400
-- Longer than any script is repeated after a lost connection.
local SECONDS_SETTLED = 900
-- The most jobs of a batch whose calls are noted: more than are ever in flight, and than workers are killed under.
local MOST_NOTED = 100000
-- Longer than any worker stays frozen and settles after all.
local SECONDS_UNKNOWN = 7 * 86400

local function now()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1e6
end

local function whole(amount)
  return string.format('%.0f', amount + 0) -- + 0 makes 0 of -0, which HINCRBY refuses
end

local function seconds(time)
  return string.format('%.3f', time)
end

local function hold_key(id)
  return PREFIX .. 'budget:hold:' .. id
end

-- The accounts of a call in a period, from the widest.
local function account_keys(call, period, label)
  local tail = ':' .. period .. ':' .. label
  return {
    PREFIX .. 'budget:all' .. tail,
    PREFIX .. 'budget:program:' .. call.program .. tail,
    PREFIX .. 'budget:variant:' .. call.program .. '.' .. call.variant .. tail,
  }
end

-- Reads a call and its limits from arguments: program, variant, model; the daily limits of all, the program and the
-- variant, then the monthly ones, '' for none; then label, start and end of three days, then of three months; at last
-- its batch, where it has one.
local function read_call(first)
  local call = { program = ARGV[first], variant = ARGV[first + 1], model = ARGV[first + 2], batch = ARGV[first + 27] }
  local scopes = { 'all', 'program:' .. call.program, 'variant:' .. call.program .. '.' .. call.variant }
  local names, limits = {}, {}
  for _, period in ipairs({ 'daily', 'monthly' }) do
    for _, scope in ipairs(scopes) do
      names[#names + 1] = scope .. ' ' .. period
      limits[#limits + 1] = { scope = scope, period = period }
    end
  end
  local set = redis.call('HMGET', LIMITS, unpack(names))
  for index, limit in ipairs(limits) do
    limit.amount = tonumber(set[index] or ARGV[first + 2 + index])
  end
  call.limits = limits
  return call
end

-- Chooses the call's day and month by Redis's clock and names each limit's account; false where none of the caller's
-- fits.
local function choose_periods(call, first, time)
  local function choose(from)
    for index = from, from + 6, 3 do
      if tonumber(ARGV[index + 1]) <= time and time < tonumber(ARGV[index + 2]) then
        return ARGV[index], tonumber(ARGV[index + 2])
      end
    end
  end
  local day, day_ends_at = choose(first + 9)
  local month, month_ends_at = choose(first + 18)
  if not (day and month) then
    return false
  end
  call.day, call.month = day, month
  local daily, monthly = account_keys(call, 'daily', day), account_keys(call, 'monthly', month)
  for index = 1, 3 do
    call.limits[index].key, call.limits[index].ends_at = daily[index], day_ends_at
    call.limits[index + 3].key, call.limits[index + 3].ends_at = monthly[index], month_ends_at
  end
  return true
end

-- The call as it was held, or nil.
local function read_hold(id)
  local held =
    redis.call('HMGET', hold_key(id), 'state', 'bound', 'day', 'month', 'program', 'variant', 'model', 'batch')
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
  }
end

local function add(key, field, amount)
  if amount ~= 0 and redis.call('HINCRBY', key, field, whole(amount)) < 0 then
    redis.call('HSET', key, field, 0) -- an operator reset it meanwhile
  end
end

local function batch_key(batch)
  return PREFIX .. 'budget:batch:' .. batch
end

local function batch_day_key(call)
  return batch_key(call.batch) .. ':daily:' .. call.day
end

-- Notes a call of a batch for whoever writes the row of its job: what it came to, and why. The reason is ^ while it is
-- held, = where it was billed, ~ where its bill is unknown, ? where its lease ran out; none forgets the call.
-- The calls of a job are one text: '<call><reason><nano-dollars>,<prompt tokens>,<completion tokens>', separated by
-- spaces.
local function note(batch, id, reason, amount, prompt_tokens, completion_tokens)
  local key = batch_key(batch) .. ':calls'
  local job, call = string.match(id, '^([^:]*):(.*)$')
  local noted, others = redis.call('HGET', key, job), {}
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

-- Adds to what is settled and what is held in both accounts of the call's batch.
local function move_in_batch(call, settled, held)
  for key, kept in pairs({ [batch_key(call.batch)] = SECONDS_OF_BOOKS, [batch_day_key(call)] = SECONDS_OF_BATCH_DAY }) do
    add(key, 'settled', settled)
    add(key, 'held', held)
    redis.call('EXPIRE', key, kept)
  end
end

-- Adds to what is settled and what is held in each account that the call was held in.
local function move(call, settled, held)
  if call.batch then
    move_in_batch(call, settled, held)
  end
  for period, label in pairs({ daily = call.day, monthly = call.month }) do
    for _, key in ipairs(account_keys(call, period, label)) do
      add(key, 'settled', settled)
      add(key, 'held', held)
    end
  end
end

-- Writes into the books of the call's day, and its batch's, given as a table of counters and amounts.
local function book(call, counters)
  for counter, amount in pairs(call.batch and counters or {}) do
    if amount ~= 0 then
      redis.call('HINCRBY', batch_key(call.batch), counter, whole(amount))
    end
  end
  local key = PREFIX .. 'costs:' .. call.day
  local prefix = call.program .. '.' .. call.variant .. ' ' .. call.model .. ' '
  for counter, amount in pairs(counters) do
    if amount ~= 0 and redis.call('HINCRBY', key, prefix .. counter, whole(amount)) == amount then
      redis.call('EXPIRE', key, SECONDS_OF_BOOKS)
    end
  end
end

local function count(counter)
  redis.call('HINCRBY', STATISTICS, counter, 1)
end
