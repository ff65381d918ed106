#!lua flags=allow-oom
-- Frees the hold of a call that cost nothing. Where its lease had run out, the bound that was charged is taken back.
-- Libraries: guards/accounts.
-- Arguments:
--   id                  of the call
--   may_be_held_again?  '1' where the call may be held under this id once more
-- Reply: 1, or 0 where nothing was held or charged for it, or it is settled. Where nothing was held it is settled from
-- now on, unless it may be held again: the script that holds it may still arrive at a Redis that froze, with no caller
-- waiting for its reply.

local held = read_hold(id)
if not held then
  if may_be_held_again ~= '1' then
    mark_settled(id)
  end
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
redis.call('ZREM', leases_of(held), id)
return 1
