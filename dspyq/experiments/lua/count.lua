-- Counts calls that a process answered from a cache.
-- Libraries: experiments/sums.
-- Arguments:
--   process    a random id of the process that sends it
--   flush:number  its number, each above the one before: repeated after a lost connection, the same calls are counted once
--   program    its name
--   epoch      the experiment's start
--   parts      JSON, a list of [kind, arm, day, values]:
--              cells              the cells of units
--              calls:u, calls:q   pairs of a counter of the array calls, and calls
--              sums:u, sums:q     pairs of another counter of that array, and an amount
--              served             fours: task id of an answer, bucket of the question, bucket of the unit, calls; those
--                                 of one answer side by side
-- Reply: the number of parts counted, or -1 if this flush was counted before.
local latest = EXPERIMENT_FLUSH .. process
if tonumber(redis.call('GET', latest) or 0) >= flush then
  return -1
end
redis.call('SET', latest, whole(flush), 'EX', SECONDS_OF_FLUSH)
local counting = counting_of(program, epoch)
if not counting then
  return 0
end
local given = cjson.decode(parts)
for _, part in ipairs(given) do
  local kind, arm, day, values = unpack(part)
  local family, side = string.match(kind, '^(%l+):?(%l?)$')
  if family == 'cells' then
    count_cells(counting, arm, values)
  elseif family == 'served' then
    local first = 1
    for at = 1, #values, 4 do
      if values[at] ~= values[at + 4] or values[at + 1] ~= values[at + 5] then
        deliver(counting, arm, values, first, at + 3)
        first = at + 4
      end
    end
  else
    add_pairs(counting.base .. arm .. ':calls:' .. side, values, 1, #values)
    if family == 'calls' and counting.has_feedback then
      local fields = side == 'u' and FIELDS_OF_CALLS or FIELDS_OF_CALLS + SQUARES_OF_CALLS
      for at = 1, #values, 2 do
        values[at] = values[at] / fields
      end
      add_pairs(counting.base .. arm .. ':exposed:' .. day .. ':' .. side, values, 1, #values)
    end
  end
end
add_gathered()
return #given
