#!lua flags=allow-oom
-- Says what is wanted of a batch, unless it has ended.
-- Keys: the batch.
-- Arguments: run, pause or cancel; seconds after which a runner that says nothing is dead; then the states in which a
--   batch has ended.
-- Reply: {its state, '' where there is no such batch; 1 where its runner lives, else 0}.
local batch = KEYS[1]

local held = redis.call('HMGET', batch, 'state', 'seen_at')
local state, seen_at = held[1] or '', tonumber(held[2] or 0)
if state == '' then
  return { '', 0 }
end
for index = 3, #ARGV do
  if state == ARGV[index] then
    return { state, 0 }
  end
end
redis.call('HSET', batch, 'wanted', ARGV[1])
local is_alive = redis.call('TIME')[1] - seen_at < tonumber(ARGV[2])
return { state, is_alive and 1 or 0 }
