#!lua flags=allow-oom
-- Deletes calls of a batch whose costs are on rows now. A repetition is harmless: names of calls are unique.
-- Keys:
--   calls        BATCH_ACCOUNT: the batch's calls, a hash by task id (values: see dspyq/guards/lua/accounts.lua, at note)
-- Arguments:
--   receipts...  pairs of task id and receipt: the noted calls that the task's row carries, separated by spaces
-- Reply: the number of calls deleted.
local forgotten = 0
for index = 1, #receipts, 2 do
  local job = receipts[index]
  local noted = redis.call('HGET', calls, job) or ''
  local carried, left, found = {}, {}, 0
  for call in string.gmatch(receipts[index + 1], '%S+') do
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
    redis.call('HSET', calls, job, table.concat(left, ' '))
  elseif found > 0 then
    redis.call('HDEL', calls, job)
  end
  forgotten = forgotten + found
end
return forgotten
