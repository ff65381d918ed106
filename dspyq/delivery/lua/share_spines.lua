-- Has a worker serve some of the spines: those that the fewest workers serve, and those that no living worker does.
-- Keys:
--   serving    SPINES_SERVED: each worker's spines, as '<worker> <spine>', by the second at which its lease ends
--   left       SPINES_LEFT: the spines that no worker serves, with the second since which
-- Arguments:
--   worker     its name, without a blank
--   wanted:number   how many spines it serves, where it serves none yet; 0 where it ends
--   lease_seconds:number   for how long
--   spines...   all spines; of those that are served alike, the first ones are chosen
-- Reply: the spines that it serves from now on.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local own, served, count = {}, {}, 0
for i, spine in ipairs(spines) do
  served[spine] = 0
end
local was_served = {}
local members = redis.call('ZRANGE', serving, 0, -1, 'WITHSCORES')
for i = 1, #members, 2 do
  local blank = string.find(members[i], ' ', 1, true)
  local name, spine = string.sub(members[i], 1, blank - 1), string.sub(members[i], blank + 1)
  was_served[spine] = true
  if name == worker and wanted > 0 then -- whatever its lease: it lives
    own[spine] = true
    count = count + 1
  elseif tonumber(members[i + 1]) > now and name ~= worker then
    served[spine] = (served[spine] or 0) + 1
  else
    redis.call('ZREM', serving, members[i])
  end
end
if wanted > 0 and count == 0 then
  local order = {}
  for i, spine in ipairs(spines) do
    order[i] = { spine, served[spine], i }
  end
  table.sort(order, function(one, other)
    if one[2] ~= other[2] then
      return one[2] < other[2]
    end
    return one[3] < other[3]
  end)
  for i = 1, math.min(wanted, #order) do
    own[order[i][1]] = true
  end
end
local reply = {}
for i, spine in ipairs(spines) do
  if served[spine] > 0 or own[spine] then
    redis.call('HDEL', left, spine)
  else
    local since = tonumber(redis.call('HGET', left, spine) or '')
    if since == nil then -- a lease that ran out has been the wait
      since = was_served[spine] and now - lease_seconds or now
      redis.call('HSET', left, spine, since)
    end
    if wanted > 0 and count > 0 and now - since >= lease_seconds then
      own[spine] = true
      redis.call('HDEL', left, spine)
    end
  end
  if own[spine] then
    redis.call('ZADD', serving, now + lease_seconds, worker .. ' ' .. spine)
    reply[#reply + 1] = spine
  end
end
return reply
