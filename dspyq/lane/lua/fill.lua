#!lua flags=allow-oom
-- Moves open lines into a shipment, those first that came first. Those whose job is gone stay, for the caller to drop.
-- Libraries: lane/lines.
-- Arguments:
--   model              the lane's
--   token              of the worker that runs it
--   name               the shipment's; it is begun where there is none
--   limit:number       the most lines to look at
--   most_lines:number  the most lines of the shipment
--   most_bytes:number  and the most bytes
--   overhead:number    bytes of a line beside its body and its custom id
-- Reply: {1 where the shipment is full or no line is left, lines, bytes, custom ids of lines whose job is gone...}; empty
--   where another worker runs the lane.
local MOST_BATCHES = 20 -- that a shipment names

local function has(list, wanted)
  for _, one in ipairs(list) do
    if one == wanted then
      return true
    end
  end
  return false
end

if not runs_lane(model, token) then
  return {}
end
local shipments, open, shipped = part(model, 'shipments'), part(model, 'open'), part(model, 'shipped:' .. name)
local stored = redis.call('HGET', shipments, name)
local shipment = stored and cjson.decode(stored) or { name = name, state = 'filling', lines = 0, size_bytes = 0, batches = {} }
local ids = redis.call('ZRANGE', open, 0, limit - 1)
local is_done, gone = #ids < limit and 1 or 0, {}
for _, id in ipairs(ids) do
  local text = redis.call('HGET', part(model, 'lines'), id)
  local line = text and cjson.decode(text)
  local task = line and line.task
  if not task or redis.call('EXISTS', JOB .. task) == 0 then
    gone[#gone + 1] = id
  else
    local size = redis.call('HSTRLEN', part(model, 'bodies'), id) + #id + overhead
    local is_full = shipment.lines >= most_lines or shipment.size_bytes + size > most_bytes
    if is_full and shipment.lines > 0 then
      is_done = 1
      break
    end
    redis.call('ZREM', open, id)
    redis.call('RPUSH', shipped, id)
    redis.call('HINCRBY', JOB .. task, 'shipped', 1)
    shipment.lines, shipment.size_bytes = shipment.lines + 1, shipment.size_bytes + size
    if not has(shipment.batches, line.batch) and #shipment.batches < MOST_BATCHES then
      shipment.batches[#shipment.batches + 1] = line.batch
    end
  end
end
if shipment.lines > 0 then
  redis.call('HSET', shipments, name, cjson.encode(shipment))
end
return { is_done, shipment.lines, shipment.size_bytes, unpack(gone) }
