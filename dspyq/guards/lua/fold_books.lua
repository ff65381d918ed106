#!lua flags=allow-oom
-- Folds old days of the books: the counters of a variant and a model become one field, which takes half of the
-- memory. Amounts that come later stand beside it, and join it the next time.
-- Keys:
--   days...       COSTS: of each day, and of the same day where it is folded: a hash by '<program>.<variant> <model>', or
--                 '<program>.<variant>' for what was avoided; the amounts in the order of COUNTERS, separated by spaces
-- Arguments:
--   limit:number  the most days to fold
-- Reply: how many days were folded.
local COUNTERS = {
  'calls', 'prompt_tokens', 'completion_tokens', 'billed_nano_usd', 'unknown_calls', 'unknown_nano_usd',
  'avoided_nano_usd',
}
local POSITIONS = {}
for position, counter in ipairs(COUNTERS) do
  POSITIONS[counter] = position
end

-- Takes the amounts of a day out of its books; what is none stays.
local function take_lines(books)
  local entries, lines, is_any, odd = redis.call('HGETALL', books), {}, false, {}
  for index = 1, #entries, 2 do
    local line, counter = string.match(entries[index], '^(.*) (%S+)$')
    local position, amount = POSITIONS[counter], tonumber(entries[index + 1])
    if position and amount then
      lines[line] = lines[line] or {}
      lines[line][position], is_any = amount, true
    else
      odd[#odd + 1], odd[#odd + 2] = entries[index], entries[index + 1]
    end
  end
  if is_any then
    local left = redis.call('TTL', books)
    redis.call('DEL', books)
    for index = 1, #odd, 2 do
      redis.call('HSET', books, odd[index], odd[index + 1])
      redis.call('EXPIRE', books, left > 0 and left or SECONDS_OF_BOOKS)
    end
  end
  return lines, is_any
end

local function fold(books, folded)
  local left = redis.call('TTL', books)
  local lines, is_any = take_lines(books)
  for line, amounts in pairs(lines) do
    local position, texts = 0, {}
    for number in string.gmatch(redis.call('HGET', folded, line) or '', '%S+') do
      position = position + 1
      amounts[position] = (amounts[position] or 0) + tonumber(number)
    end
    for index = 1, #COUNTERS do
      texts[index] = whole(amounts[index] or 0)
    end
    redis.call('HSET', folded, line, table.concat(texts, ' '))
  end
  if is_any then
    redis.call('EXPIRE', folded, left > 0 and left or SECONDS_OF_BOOKS, 'NX')
  end
  return is_any
end

local number = 0
for index = 1, #days, 2 do
  if number < limit and redis.call('EXISTS', days[index]) == 1 and fold(days[index], days[index + 1]) then
    number = number + 1
  end
end
return number
