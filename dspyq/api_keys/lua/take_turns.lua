-- Takes turns of a key's rate: the generic cell rate algorithm, by the clock of Redis.
-- Arguments:
--   id                 of the key
--   interval:number    microseconds between two turns
--   burst:number       turns that may be taken at once
--   wanted:number      turns to take; fewer where there are fewer
-- Reply: the turns taken, those left, microseconds until the next one, and until all are back.
local turns = API_KEY_TURNS .. id
local now = now_microseconds()
local full_at = math.max(tonumber(redis.call('GET', turns) or '') or 0, now)
local free = math.max(0, math.floor((burst * interval - (full_at - now)) / interval))
local taken = math.min(free, wanted)
if taken > 0 then
  full_at = full_at + taken * interval
  redis.call('SET', turns, whole(full_at), 'PX', whole(math.ceil((full_at - now) / 1000) + 1000))
end
local left = free - taken
local wait = left > 0 and 0 or math.ceil(full_at - now - (burst - 1) * interval)
return { taken, left, math.max(0, wait), math.ceil(full_at - now) }
