#!lua flags=no-writes
-- Finds open lines whose job is gone: nothing waits for them.
-- Libraries: lane/lines.
-- Arguments:
--   model         the lane's
--   first:number  how many open lines to pass over
--   limit:number  the most to look at
-- Reply: {how many were looked at, custom ids of those whose job is gone...}.
local ids = redis.call('ZRANGE', part(model, 'open'), first, first + limit - 1)
local gone = {}
for _, id in ipairs(ids) do
  local text = redis.call('HGET', part(model, 'lines'), id)
  if not text or redis.call('EXISTS', JOB .. cjson.decode(text).task) == 0 then
    gone[#gone + 1] = id
  end
end
return { #ids, unpack(gone) }
