#!lua flags=allow-oom
-- Charges the bounds of calls whose lease expired, as unknown, because their outcome is unknown.
-- Libraries: guards/accounts.
-- Arguments:
--   limit  the most to charge in one go, of tenants and of others
-- Reply: the number of expired leases.
local now, charged = seconds(now_seconds()), 0

local function charge(leases, id)
  local held = read_hold(id)
  if held and held.state == 'held' then
    move(held, held.bound, -held.bound)
    book(held, { calls = 1, unknown_calls = 1, unknown_nano_usd = held.bound })
    redis.call('HSET', hold_key(id), 'state', 'unknown')
    redis.call('EXPIRE', hold_key(id), SECONDS_UNKNOWN)
    if held.batch then
      note(held.batch, id, '?', held.bound)
    end
    count('expired_holds')
  end
  redis.call('ZREM', leases, id)
  charged = charged + 1
end

for _, leases in ipairs({ BUDGET_LEASES, TENANT_LEASES }) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, limit)) do
    charge(leases, id)
  end
end
return charged
