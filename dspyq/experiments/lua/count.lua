-- Counts calls that a process answered from a cache.
-- Libraries: experiments/sums.
-- Arguments:
--   flush      a random id: repeated after a lost connection, the same calls are counted once
--   program    its name
--   epoch      the experiment's start
--   parts...   of each its kind, arm and day, the number of its values, and those:
--              cells              the cells of units
--              calls:u, calls:q   pairs of a counter of the array calls, '#<number>', and calls
--              sums:u, sums:q     pairs of another counter of that array and an amount
--              served             fours: task id of an answer, bucket of the question, bucket of the unit, calls; those
--                                 of one answer side by side
-- Reply: the number of parts counted, or -1 if this flush was counted before.
if not redis.call('SET', EXPERIMENT_FLUSH .. flush, 1, 'NX', 'EX', SECONDS_OF_FLUSH) then
  return -1
end
local counting, counted, index = counting_of(program, epoch), 0, 1
while counting and index < #parts do
  local kind, arm, day, first = parts[index], parts[index + 1], parts[index + 2], index + 4
  local last = index + 3 + parts[index + 3]
  local family, side = string.match(kind, '^(%l+):?(%l?)$')
  if family == 'cells' then
    count_cells(counting, arm, parts, first, last)
  elseif family == 'served' then
    local from = first
    for at = first, last, 4 do
      if parts[at] ~= parts[at + 4] or parts[at + 1] ~= parts[at + 5] or at + 4 > last then
        deliver(counting, arm, parts, from, at + 3)
        from = at + 4
      end
    end
  else
    add_pairs(counting.base .. arm .. ':calls:' .. side, parts, first, last)
    if family == 'calls' and counting.has_feedback then
      local fields = side == 'u' and FIELDS_OF_CALLS or FIELDS_OF_CALLS + SQUARES_OF_CALLS
      for at = first, last, 2 do
        parts[at] = '#' .. whole(string.sub(parts[at], 2) / fields)
      end
      add_pairs(counting.base .. arm .. ':exposed:' .. day .. ':' .. side, parts, first, last)
    end
  end
  counted, index = counted + 1, last + 1
end
add_gathered()
return counted
