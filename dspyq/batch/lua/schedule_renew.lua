-- Renews the lease of a time. An expired lease is renewed too, if no other process has found it since.
-- Libraries: batch/schedule.
-- Arguments:
--   name                  of the batch
--   label                 of the time
--   token                 of the claim
--   lease_seconds:number  from now on
-- Reply: 1, or 0 if the caller has lost the time.
local time = time_key(name, label)

if not is_of(time, token) or redis.call('HGET', time, 'state') ~= 'running' then
  return 0
end
redis.call('HSET', time, 'lease', seconds(now_seconds() + lease_seconds))
return 1
