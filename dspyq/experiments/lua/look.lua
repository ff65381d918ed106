-- Writes a look at a program's experiment, unless another look came first.
-- Keys:
--   latest         EXPERIMENT_LOOK: of the program
--   looks          EXPERIMENT_LOOKS: of the program
-- Arguments:
--   epoch          the experiment's start; looks of another start go
--   number:number  of the look, from 1
--   id             a random name of this look
--   look           the look
--   point          what is kept of it over time
--   tracks         what the looks so far have found
--   most:number    looks over time; where there are more, every second one goes
-- Reply: 1; or 0 if another look came first: then nothing is changed. A repeat after a lost connection replies 1.
local found = redis.call('HMGET', latest, 'epoch', 'number', 'id')
if found[1] ~= epoch then
  redis.call('DEL', latest, looks)
  found = { epoch, '0' }
end
if tonumber(found[2]) == number and found[3] == id then
  return 1
end
if tonumber(found[2]) ~= number - 1 then
  return 0
end
redis.call('HSET', latest, 'epoch', epoch, 'number', whole(number), 'id', id, 'look', look, 'tracks', tracks)
if redis.call('RPUSH', looks, point) > most then
  local kept = {}
  for index, each in ipairs(redis.call('LRANGE', looks, 0, -1)) do
    if index % 2 == 1 then
      kept[#kept + 1] = each
    end
  end
  redis.call('DEL', looks)
  redis.call('RPUSH', looks, unpack(kept))
end
redis.call('EXPIRE', latest, SECONDS_OF_EXPERIMENT)
redis.call('EXPIRE', looks, SECONDS_OF_EXPERIMENT)
return 1
