-- Folds the arrays of days whose judgements are complete into one.
-- Libraries: experiments/sums.
-- Arguments:
--   program    its name
--   epoch      the experiment's start
--   arrays...  pairs of names behind the start: of a day's array, and of that which takes it
-- Reply: the number of arrays folded. Each is deleted where it is added, so a repeat folds nothing twice.
local counting, folded = counting_of(program, epoch), 0
if not counting then
  return 0
end
for index = 1, #arrays, 2 do
  local from, into = counting.base .. arrays[index], counting.base .. arrays[index + 1]
  local counters = math.floor(redis.call('STRLEN', from) / 8)
  for first = 0, counters - 1, 512 do
    local last = math.min(counters, first + 512) - 1
    local reading = { 'BITFIELD', from }
    for counter = first, last do
      local at = #reading
      reading[at + 1], reading[at + 2], reading[at + 3] = 'GET', 'i64', '#' .. whole(counter)
    end
    local adding = { 'BITFIELD', into, 'OVERFLOW', 'SAT' }
    for offset, amount in ipairs(redis.call(unpack(reading))) do
      if amount ~= 0 then
        local at = #adding
        adding[at + 1], adding[at + 2] = 'INCRBY', 'i64'
        adding[at + 3], adding[at + 4] = '#' .. whole(first + offset - 1), whole(amount)
      end
    end
    if #adding > 4 then
      redis.call(unpack(adding))
    end
  end
  if counters > 0 then
    redis.call('EXPIRE', into, SECONDS_OF_EXPERIMENT)
    folded = folded + redis.call('DEL', from)
  end
end
return folded
