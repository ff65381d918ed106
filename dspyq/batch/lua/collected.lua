#!lua flags=allow-oom
-- Forgets calls of a batch that stand on rows now; as often as it likes, for no call has another's name.
-- Keys: the batch's calls, a hash by task id (its values are told in dspyq/guards/lua/accounts.lua, at note).
-- Arguments: pairs of task id and receipt: the noted calls that the task's row carries, separated by spaces.
-- Reply: how many calls were forgotten.
local forgotten = 0
for index = 1, #ARGV, 2 do
  local job, noted = ARGV[index], redis.call('HGET', KEYS[1], ARGV[index]) or ''
  local carried, left, found = {}, {}, 0
  for call in string.gmatch(ARGV[index + 1], '%S+') do
    carried[call] = true
  end
  for call in string.gmatch(noted, '%S+') do
    if carried[call] then
      found = found + 1
    else
      left[#left + 1] = call
    end
  end
  if found > 0 and #left > 0 then
    redis.call('HSET', KEYS[1], job, table.concat(left, ' '))
  elseif found > 0 then
    redis.call('HDEL', KEYS[1], job)
  end
  forgotten = forgotten + found
end
return forgotten
