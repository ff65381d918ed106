#!lua flags=no-writes
-- Finds out if a call of a lane, which is held by now, leaves enough of each day's limit to calls that are not held as long.
-- Libraries: guards/call_limits.
-- Arguments:
--   bound:number  nano-dollars of the call
--   share:number  the most of what a limit has left that calls may hold together, from 0 to 1
-- Reply: 1, or 0 where it does not.
local call = read_call()
if not choose_periods(call, now_seconds()) then
  return 1 -- hold.lua states what is wrong
end
for _, limit in ipairs(call.limits) do
  if limit.amount and limit.period == 'daily' and not limit.is_damaged then
    local account = redis.call('HMGET', limit.key, 'settled', 'held')
    local settled, held = amount_of(account[1]) or 0, amount_of(account[2]) or 0
    if held > bound and held > share * (limit.amount - settled) then
      return 0
    end
  end
end
return 1
