#!lua flags=allow-oom
-- Frees the hold of a call that cost nothing. Where its lease had run out, the bound that was charged is taken back.
-- Arguments: id of the call.
-- Reply: 1, or 0 where nothing was held or charged for it, or it is settled. Where nothing was held it is settled from
-- now on: the script that holds it may still be on its way, in a Redis that froze, and nobody waits for its reply.
local id = ARGV[1]

local held = read_hold(id)
if not held then
  redis.call('HSET', hold_key(id), 'state', 'settled')
  redis.call('EXPIRE', hold_key(id), SECONDS_SETTLED)
  return 0
end
if held.state == 'settled' then
  return 0
end
if held.state == 'held' then
  move(held, 0, -held.bound)
else
  move(held, -held.bound, 0)
  book(held, { calls = -1, unknown_calls = -1, unknown_nano_usd = -held.bound })
end
if held.batch then
  note(held.batch, id)
end
redis.call('DEL', hold_key(id))
redis.call('ZREM', LEASES, id)
return 1
