#!lua flags=allow-oom
-- Lands the outcome of a line: keeps it for its job's next run, and wakes the job once none of its lines is left.
-- Libraries: lane/lines.
-- Arguments:
--   model      the lane's
--   token      of the worker that runs it
--   id         the line's custom id
--   fields...  as of guards/remember.lua
-- Reply: 1; 0 where it had landed before; -1 where another worker runs the lane.
if not runs_lane(model, token) then
  return -1
end
local line = remove_line(model, id)
if not line then
  return 0
end
if redis.call('EXISTS', JOB .. line.task) == 1 and #fields > 0 then
  redis.call('HSET', CALLS .. line.task, unpack(fields))
end
end_line(line)
return 1
