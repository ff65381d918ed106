#!lua flags=allow-oom
-- Adds entries of a run to the log of its task, and publishes them for listeners; safe to repeat.
-- Keys:
--   log            STREAM: of the task
-- Arguments:
--   id             of the task
--   fence          of the run, '' where jobs live elsewhere
--   offset:number  length of the log before this, in bytes; -1 for its end, where the first entry of a run goes, which is
--                  unlike all others
--   entries        what to add, '' to look only
-- Reply: the length of the log behind it; -1 where the run has lost its job; -2 where the log is another than the run
--   wrote, for it expired or another run writes it: then nothing is changed.
if not may_change(id, fence) then
  return -1
end
local length = redis.call('STRLEN', log)
if offset < 0 then
  if entries ~= '' and redis.call('GETRANGE', log, -#entries, -1) == entries then -- added before, and its reply was lost
    return length
  end
  offset = length
end
if entries ~= '' and length == offset + #entries and redis.call('GETRANGE', log, offset, -1) == entries then
  return length
end
if length ~= offset then
  return -2
end
if entries ~= '' then
  redis.call('APPEND', log, entries)
  redis.call(PUBLISH, log, whole(length) .. '\n' .. entries)
end
redis.call('EXPIRE', log, SECONDS_OF_STREAM)
return length + #entries
