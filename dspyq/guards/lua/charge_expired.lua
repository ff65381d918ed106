#!lua flags=allow-oom
-- Charges the bounds of calls whose lease expired, as unknown, because their outcome is unknown.
-- Libraries: guards/accounts.
-- Arguments:
--   limit  the most to charge in one go
-- Reply: the number of expired leases.
local expired = redis.call('ZRANGEBYSCORE', BUDGET_LEASES, '-inf', seconds(now_seconds()), 'LIMIT', 0, limit)

for _, id in ipairs(expired) do
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
  redis.call('ZREM', BUDGET_LEASES, id)
end
return #expired
