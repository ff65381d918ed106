-- Counts requests with a key of the API.
-- Arguments:
--   id                 of the key
--   month              of now
--   day                of now
--   requests:number    requests that were let in
--   refused:number     requests that its rate or its places to wait refused
-- Reply: 1.
local usage = API_KEY_USAGE .. id .. ':' .. month
redis.call('HINCRBY', usage, day .. ' requests', whole(requests))
redis.call('HINCRBY', usage, day .. ' refused', whole(refused))
redis.call('EXPIRE', usage, SECONDS_OF_BOOKS)
local key = API_KEY .. id
if redis.call('EXISTS', key) == 1 then -- one that the configuration file states has no record
  redis.call('HSET', key, 'last_used_day', day)
end
return 1
