#!lua flags=allow-oom
-- Removes a line that is in no shipment.
-- Libraries: lane/lines.
-- Arguments:
--   model  the lane's
--   id     the line's custom id
-- Reply: 1, or 0 where it is shipped or has ended.
if not redis.call('ZSCORE', part(model, 'open'), id) then
  return 0
end
local line = remove_line(model, id)
if line then
  end_line(line)
end
return 1
