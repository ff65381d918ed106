-- A call and its limits, for scripts with a call in their arguments.
-- Libraries: guards/accounts.
-- Arguments:
--   program        that calls
--   variant        of it
--   model          that is called
--   configured     daily limits of all, the program, the variant and the tenant where it has one, then the monthly ones,
--                  separated by spaces, - for none; empty where all are
--   days           label, start and end of three days, separated by spaces, the likeliest day first
--   months         the same of three months
--   batch?         that pays
--   payer?         shadow or judge, whose account takes the variant's place
--   tenant?        that pays too
--   tenant_rate?   its configured rate: calls a second, and how many may begin at once, separated by a space

-- Names the account of each limit in a call's day and month.
local function name_accounts(limits, call)
  if #limits > 0 then
    local daily, monthly = account_keys(call, 'daily', call.day), account_keys(call, 'monthly', call.month)
    for index = 1, #daily do
      limits[index].key, limits[index + #daily].key = daily[index], monthly[index]
    end
  end
end

-- Reads the call and its limits: all six, of a tenant's call eight, or none where it has none.
local function read_call()
  local call = { program = program, variant = variant, model = model, limits = {} }
  call.batch, call.payer = batch ~= '' and batch or nil, payer ~= '' and payer or nil
  call.tenant, call.rate = tenant ~= '' and tenant or nil, tenant_rate
  if configured == '' and redis.pcall('HLEN', BUDGET_LIMITS) == 0 then
    return call
  end
  local scopes = { 'all', 'program:' .. program, own_scope(call), call.tenant and 'tenant:' .. call.tenant }
  local names, limits = {}, call.limits
  for _, period in ipairs({ 'daily', 'monthly' }) do
    for _, scope in ipairs(scopes) do
      names[#names + 1] = scope .. ' ' .. period
      limits[#limits + 1] = { scope = scope, period = period }
    end
  end
  if call.tenant then
    limits[4].is_of_tenant, limits[8].is_of_tenant = true, true
    names[#names + 1] = scopes[4] .. ' rate'
  end
  local stated = string.gmatch(configured, '%S+')
  local set = redis.pcall('HMGET', BUDGET_LIMITS, unpack(names))
  for index, limit in ipairs(limits) do
    local amount = stated()
    limit.amount = tonumber(set[index] or amount)
    limit.is_damaged = set.err or set[index] and not amount_of(set[index])
  end
  if call.tenant then
    call.rate = set[#limits + 1] or call.rate
  end
  return call
end

-- Chooses the call's day and month by Redis's clock and names each limit's account; false where none of the caller's
-- fits.
local function choose_periods(call, time)
  local function choose(periods)
    for label, starts_at, ends_at in string.gmatch(periods, '(%S+) (%S+) (%S+)') do
      if tonumber(starts_at) <= time and time < tonumber(ends_at) then
        return label, tonumber(ends_at)
      end
    end
  end
  local day, day_ends_at = choose(days)
  local month, month_ends_at = choose(months)
  if not (day and month) then
    return false
  end
  call.day, call.month = day, month
  name_accounts(call.limits, call)
  for _, limit in ipairs(call.limits) do
    limit.ends_at = limit.period == 'daily' and day_ends_at or month_ends_at
  end
  return true
end
