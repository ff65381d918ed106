#!lua flags=allow-oom
-- Renews the leases of calls that are still held.
-- Libraries: guards/accounts.
-- Arguments:
--   lease_seconds:number  from now on
--   ids...                of the calls
-- Reply: the number of them that are held, or were charged their bounds as their leases had run out.
local until_second, renewed = seconds(now_seconds() + lease_seconds), 0
for _, id in ipairs(ids) do
  local held = read_hold(id)
  if held and held.state == 'held' then
    redis.call('ZADD', leases_of(held), until_second, id)
  end
  if held and held.state ~= 'settled' then
    renewed = renewed + 1
  end
end
return renewed
