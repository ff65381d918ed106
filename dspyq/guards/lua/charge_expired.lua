#!lua flags=allow-oom
-- Charges calls whose lease ran out their bound, as unknown: what became of them nobody knows.
-- Arguments: the most to charge in one go.
-- Reply: how many leases had run out.
local expired = redis.call('ZRANGEBYSCORE', LEASES, '-inf', seconds(now()), 'LIMIT', 0, ARGV[1])

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
  redis.call('ZREM', LEASES, id)
end
return #expired
