#!lua flags=allow-oom
-- Requests a state of a batch, unless it has ended.
-- Keys:
--   batch                BATCH: its facts
-- Arguments:
--   wanted               run, pause or cancel
--   dead_seconds:number  after which a silent runner counts as dead
--   ended...             the states in which a batch has ended
-- Reply: {its state, '' without such a batch; 1 if its runner is alive, else 0}.

local held = redis.call('HMGET', batch, 'state', 'seen_at')
local state, seen_at = held[1] or '', tonumber(held[2] or 0)
if state == '' then
  return { '', 0 }
end
for _, final in ipairs(ended) do
  if state == final then
    return { state, 0 }
  end
end
redis.call('HSET', batch, 'wanted', wanted)
local is_alive = now_seconds() - seen_at < dead_seconds
return { state, is_alive and 1 or 0 }
