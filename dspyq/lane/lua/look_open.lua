#!lua flags=no-writes
-- Looks at the lines of a lane that are in no shipment.
-- Libraries: lane/lines.
-- Arguments:
--   model  the lane's
-- Reply: {how many, seconds since the first came, since the last, Redis's time, how many lines in all, how many rows wait for money}, the seconds as text.
local open, now = part(model, 'open'), now_seconds()
local first = redis.call('ZRANGE', open, 0, 0, 'WITHSCORES')[2] or now
local last = redis.call('ZRANGE', open, -1, -1, 'WITHSCORES')[2] or now
return {
  redis.call('ZCARD', open),
  string.format('%.3f', now - first),
  string.format('%.3f', now - last),
  string.format('%.3f', now),
  redis.call('HLEN', part(model, 'lines')),
  redis.call('ZCARD', part(model, 'unpaid')),
}
