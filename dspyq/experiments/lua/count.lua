-- Counts calls that a process answered from a cache.
-- Libraries: experiments/sums.
-- Arguments:
--   flush      a random id: repeated after a lost connection, the same calls are counted once
--   program    its name
--   rows...    six values a row: exposure, task id of the answer, calls, µs waited, the sum of the squares of the ms
--              waited, calls that waited too long
-- Reply: the number of rows counted, or -1 if this flush was counted before.
if not redis.call('SET', EXPERIMENT_FLUSH .. flush, 1, 'NX', 'EX', SECONDS_OF_FLUSH) then
  return -1
end
local counted, counting, epoch, seen = 0, nil, nil, {}
for index = 1, #rows, 6 do
  local its_epoch, arm, unit, question, cell, day = string.match(rows[index], '^(%S+) (%S+) (%d+) (%d+) (%d+) (%d+)$')
  if its_epoch ~= epoch then
    epoch = its_epoch
    counting = epoch and counting_of(program, epoch)
  end
  if counting then
    local exposed, calls = { epoch, arm, unit, question, cell, day }, rows[index + 2]
    if not seen[cell] then
      seen[cell] = true
      count_unit(counting, exposed)
    end
    gather_hits(counting, exposed, calls, rows[index + 3], rows[index + 4], rows[index + 5])
    if counting.has_scores or counting.keep_rows > 0 then
      deliver(counting, exposed, rows[index + 1], tonumber(calls))
    end
    counted = counted + 1
  end
end
add_gathered()
return counted
