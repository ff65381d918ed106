-- Shared by the scripts on lanes: the calls of batches that go to the batch interface of a model's provider.
-- Libraries: delivery/sleepers.
--
-- A call there is a line. Its custom id is <digest>-<occurrence>-<attempt>-<end of the task id>. Of each model:
--   dspy:v1:lane:<model>:lines           hash by custom id: the line, as JSON: task, program, variant, version, batch and
--                                        what else its bill needs; until its outcome has landed
--   dspy:v1:lane:<model>:bodies          hash by custom id: the request; until its provider has accepted it
--   dspy:v1:lane:<model>:open            sorted set of the lines that are in no shipment, by the second they came
--   dspy:v1:lane:<model>:held            nano-dollars that its lines hold: the sum of their bounds
--   dspy:v1:lane:<model>:unpaid          sorted set of '<batch>:<task>' of rows that wait for money: those that have begun by
--                                        the number of their replies, below 0, and then the others by their turns
--   dspy:v1:lane:<model>:shipments       hash by name: the shipment, as JSON; each step is saved before it is taken
--   dspy:v1:lane:<model>:shipped:<name>  list of a shipment's lines, in the order of its file
--   dspy:v1:lane:<model>:doubled:<name>  hash as of lines: those of a shipment that may have been created twice
--   dspy:v1:lane:<model>:runner          token of the worker that runs the lane, until its lease ends
--   dspy:v1:lane:<model>:quota           hash: most_tokens, as the provider stated it
--   dspy:v1:lane:<model>:salvaged        hash by digest and occurrence: replies that were read again from the provider
--   dspy:v1:lane:<model>:past            list of the last shipments that were closed, the latest first
--   dspy:v1:lane:<model>:flush           there while open lines are to be shipped without a wait
--   dspy:v1:lane:<model>:synced          written, and of no use, before a wait for Redis's disk
--   dspy:v1:lane:<model>:cancelled       set of the names of shipments that are to be cancelled
-- And of all: dspy:v1:lanes, the set of the models with any of these.

local function part(model, name)
  return LANE .. model .. ':' .. name
end

local function runs_lane(model, token)
  return redis.call('GET', part(model, 'runner')) == token
end

-- Removes a line, which may be open or shipped, and returns it; nil where it had ended.
local function remove_line(model, id)
  local text = redis.call('HGET', part(model, 'lines'), id)
  if not text then
    return nil
  end
  local line = cjson.decode(text)
  redis.call('HDEL', part(model, 'lines'), id)
  redis.call('HDEL', part(model, 'bodies'), id)
  redis.call('DECRBY', part(model, 'held'), whole(line.bound))
  line.was_open = redis.call('ZREM', part(model, 'open'), id) == 1
  if redis.call('HINCRBY', LANE_VERSIONS, line.version, -1) <= 0 then
    redis.call('HDEL', LANE_VERSIONS, line.version)
  end
  return line
end

-- Takes a removed line off its job, and wakes that once it has none.
local function end_line(line)
  local job = JOB .. line.task
  if redis.call('EXISTS', job) == 0 then
    return
  end
  if not line.was_open then
    redis.call('HINCRBY', job, 'shipped', -1)
  end
  if redis.call('HINCRBY', job, 'lines', -1) <= 0 then
    redis.call('HDEL', job, 'lines', 'shipped')
    wake(line.task)
  end
end
