#!lua flags=no-writes
-- Counts what lanes hold, of those that hold anything.
-- Libraries: lane/lines.
-- Reply: Redis's time as text, then for each lane a list: {its model, lines in no shipment, lines in all, rows that wait for
--   money, nano-dollars held, 1 where a worker runs it, its shipments as JSON...}.
local found = { string.format('%.3f', now_seconds()) }
for _, model in ipairs(redis.call('SMEMBERS', LANES)) do
  local lane = {
    model,
    redis.call('ZCARD', part(model, 'open')),
    redis.call('HLEN', part(model, 'lines')),
    redis.call('ZCARD', part(model, 'unpaid')),
    tonumber(redis.call('GET', part(model, 'held')) or 0),
    redis.call('EXISTS', part(model, 'runner')),
  }
  for _, shipment in ipairs(redis.call('HVALS', part(model, 'shipments'))) do
    lane[#lane + 1] = shipment
  end
  found[#found + 1] = lane
end
return found
