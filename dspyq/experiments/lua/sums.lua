-- Shared by the scripts that count for an experiment.
-- Libraries: experiments/rows, experiments/state.
--
-- An exposure is a call of a unit that is enrolled: '<epoch> <arm> <unit's bucket> <question's bucket> <cell> <day>'.
-- Each arm has arrays of 64-bit counters, EXPERIMENT_SUMS .. '<program>:<epoch>:<arm>:<array>', 1,024 buckets of
--   calls      n, failed, fallback, waited in µs, paid in nano-dollars, not hit, slow; by question also the squares of
--              what was waited in ms and paid in micro-dollars
--   answers    n, cost in nano-dollars, time in µs, slow, tokens; by question also the squares of the cost in
--              micro-dollars, the time in ms, and the tokens
--   score:…, delivered:…, feedback:…:<day>   n, sum in millionths of the range; by question also the squares, in
--              hundredths of a per cent of the range
--   exposed:<day>   n
-- each by unit, ':u', and by question, ':q'. '<program>:<epoch>:seen' is a bitmap of units (':seen::<arm>' of an arm's, where
-- there are several servers), ':units' their number by arm;
-- ':<arm>:times' is a histogram of the times of computed answers.
-- '<program>:<epoch>:unscored' is a hash, '<arm> <reason> <score>' to a number of answers; the score is * where none of the
-- answer's was counted.
local FIELDS_OF_CALLS, SQUARES_OF_CALLS = 7, 2
local VALUES_AT_ONCE, BITS_OF_A_COUNTER = 1000, 64

local function split(text)
  local words = {}
  for word in string.gmatch(text, '%S+') do
    words[#words + 1] = word
  end
  return words
end

-- The settings of the counts of the experiment that an exposure is of; nil where that is no more, or cannot be read.
local function counting_of(program, epoch)
  local stated = redis.pcall('HGET', EXPERIMENT_STATE .. program, 'counting')
  local words = split(type(stated) == 'string' and stated or '')
  if not epoch or words[1] ~= epoch then
    return nil
  end
  return {
    name = program .. ':' .. epoch,
    base = EXPERIMENT_SUMS .. program .. ':' .. epoch .. ':',
    slow_answer = tonumber(words[2]),
    slow_wait = tonumber(words[3]),
    has_feedback = string.find(words[4] or '', 'f', 1, true) ~= nil,
    units_by_arm = string.find(words[4] or '', 's', 1, true) ~= nil,
    keep_rows = tonumber(words[5]) or 0,
    scores = { unpack(words, 6) },
  }
end

-- Runs a function that counts for the experiment of a queue's program. A key that another program wrote to costs its
-- counts, which are missing then, and never the question. Reply: the function's, nil where it failed.
local function survived(queue, counting, ...)
  local is_done, found = pcall(counting, ...)
  if is_done then
    return found
  end
  redis.pcall('HINCRBY', EXPERIMENT_REFUSED .. program_of(queue), 'damaged', 1)
  return nil
end

-- Adds amounts to a bucket of an array; amounts are numbers up to 2^53, or texts.
local function add(array, bucket, amounts)
  local command = { 'BITFIELD', array, 'OVERFLOW', 'SAT' }
  for field, amount in ipairs(amounts) do
    if tonumber(amount) ~= 0 then
      local at = #command
      command[at + 1], command[at + 2] = 'INCRBY', 'i64'
      command[at + 3] = '#' .. whole(bucket * #amounts + field - 1)
      command[at + 4] = type(amount) == 'number' and whole(amount) or amount
    end
  end
  if #command > 4 then
    local sums = redis.call(unpack(command))
    if sums[1] == tonumber(amounts[1]) then -- the bucket's first row: the array may be new
      redis.call('EXPIRE', array, SECONDS_OF_EXPERIMENT)
    end
  end
end

-- Adds a row's amounts by unit and by question; the squares, behind the position, by question alone.
local function add_both(array, unit, question, amounts, squared_from)
  local plain = {}
  for field = 1, squared_from - 1 do
    plain[field] = amounts[field]
  end
  add(array .. ':u', unit, plain)
  add(array .. ':q', question, amounts)
end

-- The bitmap of units. Where their questions are on several servers, each arm has one, so that they can be united.
local function units_of(counting, arm)
  return counting.base .. (counting.units_by_arm and 'seen::' .. arm or 'seen')
end

-- Counts a unit once.
local function count_unit(counting, exposed)
  local seen, units = units_of(counting, exposed[2]), counting.base .. 'units'
  if redis.call('SETBIT', seen, exposed[5], 1) == 0 and redis.call('HINCRBY', units, exposed[2], 1) == 1 then
    redis.call('EXPIRE', seen, SECONDS_OF_EXPERIMENT)
    redis.call('EXPIRE', units, SECONDS_OF_EXPERIMENT)
  end
end

-- Counts calls of one unit and question. calls: n, failed, fallback, waited, paid, not hit, slow and the two squares.
local function count_calls(counting, exposed, calls)
  add_both(counting.base .. exposed[2] .. ':calls', exposed[3], exposed[4], calls, FIELDS_OF_CALLS + 1)
  if counting.has_feedback then
    local array = counting.base .. exposed[2] .. ':exposed:' .. exposed[6]
    add_both(array, exposed[3], exposed[4], { calls[1] }, 2)
  end
end

-- Counts a score that an answer does not have.
local function count_unscored(program, exposed, reason, name)
  local counting = counting_of(program, exposed[1])
  if counting then
    local unscored = counting.base .. 'unscored'
    if redis.call('HINCRBY', unscored, exposed[2] .. ' ' .. reason .. ' ' .. name, 1) == 1 then
      redis.call('EXPIRE', unscored, SECONDS_OF_EXPERIMENT)
    end
  end
end

-- Keeps a counted answer for its scores, with its exposure; true if it is kept. What it cost, in nano-dollars, and took, in
-- ms, stands beside its scores: pairs of a shadow run compare both.
local function await_scores(program, id, content, cost, time)
  local exposure = redis.call('HGET', EXPERIMENT_ANSWER .. id, 'exposure')
  if content == '' or not exposure then
    return false
  end
  redis.call('HSET', EXPERIMENT_ANSWER .. id, 'cost', whole(cost), 'time', whole(time))
  local waiting = EXPERIMENT_UNSCORED .. program
  if redis.call('ZCARD', waiting) >= MOST_UNSCORED then
    count_unscored(program, split(exposure), 'dropped', '*')
    return false
  end
  redis.call('ZADD', waiting, whole(now_milliseconds() + SECONDS_TO_SCORE * 1000), id)
  redis.call('HSET', waiting .. ':content', id, exposure .. '\n' .. content)
  redis.call('EXPIRE', waiting, SECONDS_OF_UNSCORED)
  redis.call('EXPIRE', waiting .. ':content', SECONDS_OF_UNSCORED)
  return true
end

-- Lets go of an answer that waited for its scores. Reply: its exposure, as words; nil if it did not wait.
local function end_waiting(program, id)
  local waiting = EXPERIMENT_UNSCORED .. program
  local held = redis.call('HGET', waiting .. ':content', id)
  redis.call('ZREM', waiting, id)
  redis.call('HDEL', waiting .. ':content', id, 'taken ' .. id)
  local exposed = split(held and string.match(held, '^[^\n]*') or '')
  return #exposed == 6 and exposed or nil
end

-- Adds to counters of an array: pairs of a counter and an amount, in a list from the first to the last. One command for
-- many costs a fifth of one for each.
local function add_pairs(array, amounts, first, last)
  local command, at = { 'BITFIELD', array, 'OVERFLOW', 'SAT' }, 4
  for index = first, last, 2 do
    command[at + 1], command[at + 2] = 'INCRBY', 'i64'
    command[at + 3], command[at + 4] = amounts[index] * BITS_OF_A_COUNTER, amounts[index + 1]
    at = at + 4
  end
  redis.call(unpack(command))
  redis.call('EXPIRE', array, SECONDS_OF_EXPERIMENT)
end

-- Counts units once, by a list of their cells.
local function count_cells(counting, arm, cells)
  local seen, units, new = units_of(counting, arm), counting.base .. 'units', 0
  local command, at = { 'BITFIELD', seen }, 2
  for _, cell in ipairs(cells) do
    command[at + 1], command[at + 2], command[at + 3], command[at + 4] = 'SET', 'u1', cell, 1
    at = at + 4
  end
  for _, before in ipairs(redis.call(unpack(command))) do
    new = new + 1 - before
  end
  if new > 0 then
    redis.call('HINCRBY', units, arm, new)
    redis.call('EXPIRE', seen, SECONDS_OF_EXPERIMENT)
    redis.call('EXPIRE', units, SECONDS_OF_EXPERIMENT)
  end
end

-- Counts the score of an answer for calls that it was served to.
local function count_delivered(counting, arm, unit, question, name, calls, score)
  local part = math.floor(score / 100)
  add_both(counting.base .. arm .. ':delivered:' .. name, unit, question, { calls, calls * score, calls * part * part }, 3)
end

-- Sums to add, by array and in it by counter.
local gathered

local function sums_of(array)
  gathered = gathered or {}
  local sums = gathered[array] or {}
  gathered[array] = sums
  return sums
end

local function add_gathered()
  for array, sums in pairs(gathered or {}) do
    local amounts, at = {}, 0
    for counter, amount in pairs(sums) do
      amounts[at + 1], amounts[at + 2] = counter, amount
      at = at + 2
    end
    for first = 1, at, VALUES_AT_ONCE do
      add_pairs(array, amounts, first, math.min(first + VALUES_AT_ONCE - 1, at))
    end
  end
  gathered = nil
end

-- The scores of an answer, in the order of the settings, behind its exposure; false for what it does not have.
local function scores_of(counting, id)
  local reading = counting.reading
  if not reading then
    reading = { 'HMGET', '', 'exposure' }
    for index, name in ipairs(counting.scores) do
      reading[index + 3] = 's:' .. name
    end
    counting.reading = reading
  end
  reading[2] = EXPERIMENT_ANSWER .. id
  return redis.call(unpack(reading))
end

-- Adds calls that an answer was served to, and its scores as far as they are known, once add_gathered is called. served: a
-- list, from the first to the last, of fours: task id and bucket of the question, the same in all; of the unit; calls.
local function deliver(counting, arm, served, first, last)
  local id, at_question, calls = served[first], served[first + 1] * 3, 0
  for index = first, last, 4 do
    calls = calls + served[index + 3]
  end
  note_served(counting, id, calls)
  local scores, is_open = #counting.scores > 0 and scores_of(counting, id) or {}, false
  for position, name in ipairs(scores[1] and counting.scores or {}) do
    local score = scores[position + 1]
    if score then
      local array, part = counting.base .. arm .. ':delivered:' .. name, math.floor(score / 100)
      local by_unit, by_question = sums_of(array .. ':u'), sums_of(array .. ':q')
      for index = first, last, 4 do
        local at, its_calls = served[index + 2] * 2, served[index + 3]
        by_unit[at] = (by_unit[at] or 0) + its_calls
        by_unit[at + 1] = (by_unit[at + 1] or 0) + its_calls * score
      end
      by_question[at_question] = (by_question[at_question] or 0) + calls
      by_question[at_question + 1] = (by_question[at_question + 1] or 0) + calls * score
      by_question[at_question + 2] = (by_question[at_question + 2] or 0) + calls * part * part
    end
    is_open = is_open or not score
  end
  for index = first, is_open and last or first - 1, 4 do -- a score that comes later counts for these calls too
    redis.call('HINCRBY', EXPERIMENT_ANSWER .. id, 'w:' .. served[index + 2], served[index + 3])
  end
end

-- Notes a call that waits for a run: it is counted when the run ends. A unit is counted now, so that a slower arm has no
-- fewer. EXPERIMENT_OPEN .. '<task id>' has a field for each call, '<exposure> <ms since 1970> <number>', named by the task
-- that claimed or joined for it: a claim that is repeated after a lost connection is the same call. Once they are counted it
-- stays for a moment, with the field 'closed'.
local function note_exposure(queue, id, exposure, caller)
  local exposed = split(exposure)
  local counting = counting_of(program_of(queue), exposed[1])
  if not counting then
    return
  end
  count_unit(counting, exposed)
  local open = EXPERIMENT_OPEN .. id
  if redis.call('HEXISTS', open, 'closed') == 1 then -- of an earlier job under an id that a caller chose
    redis.call('DEL', open)
  end
  local waiting = redis.call('HLEN', open)
  if waiting >= MOST_OPEN_EXPOSURES then
    redis.call('HINCRBY', counting.base .. 'units', 'dropped:' .. exposed[2], 1)
    return
  end
  redis.call('HSETNX', open, caller, exposure .. ' ' .. whole(now_milliseconds()) .. ' ' .. whole(waiting))
  if waiting == 0 then
    redis.call('EXPIRE', open, SECONDS_OF_OPEN_EXPOSURE)
  end
end

local function expose(queue, ...)
  survived(queue, note_exposure, queue, ...)
end

-- Takes a call back that was noted.
local function unexpose(id, caller)
  redis.pcall('HDEL', EXPERIMENT_OPEN .. id, caller)
end

-- True if a call was noted for a run that has ended since, and so is counted.
local function is_counted(id, caller)
  return redis.pcall('HEXISTS', EXPERIMENT_OPEN .. id, caller) == 1
end

-- Sums the calls that wait for a run by the bucket of their unit. Reply: the sums, and the exposure of the first.
local function waiting_for(id, counting_by_epoch, program)
  local by_unit, first, first_at, now = {}, nil, math.huge, now_milliseconds()
  local noted = redis.call('HVALS', EXPERIMENT_OPEN .. id)
  for _, each in ipairs(noted) do
    local exposed = split(each)
    if counting_by_epoch[exposed[1]] == nil then
      counting_by_epoch[exposed[1]] = counting_of(program, exposed[1]) or false
    end
    local counting = counting_by_epoch[exposed[1]]
    if counting then
      local noted_at = tonumber(exposed[7]) + tonumber(exposed[8]) / (2 * MOST_OPEN_EXPOSURES)
      if noted_at < first_at then
        first, first_at = exposed, noted_at
      end
      local waited = math.max(0, now - tonumber(exposed[7]))
      local key = table.concat({ unpack(exposed, 1, 6) }, ' ')
      local sums = by_unit[key] or { exposed = exposed, n = 0, waited = 0, squares = 0, slow = 0 }
      sums.n, sums.waited, sums.squares = sums.n + 1, sums.waited + waited, sums.squares + waited * waited
      if counting.slow_wait and waited > counting.slow_wait then
        sums.slow = sums.slow + 1
      end
      by_unit[key] = sums
    end
  end
  return by_unit, first
end

-- Counts a time in a histogram of 96 counters of 32 bits; each span ends 15 % beyond the one before.
local function count_time(array, milliseconds)
  local span = math.min(95, math.floor(math.log(math.max(1, milliseconds)) / 0.14))
  if redis.call('BITFIELD', array, 'OVERFLOW', 'SAT', 'INCRBY', 'u32', '#' .. whole(span), 1)[1] == 1 then
    redis.call('EXPIRE', array, SECONDS_OF_EXPERIMENT)
  end
end

-- Counts the calls that waited for a run, once, now that it has ended. ended: failed, fallback and hit, 1 or 0 each; the
-- cost in nano-dollars; answer, the task whose answer they got, nil for none; and of an answer that this run computed also
-- its time in ms, its tokens, the seconds for which its scores may come, and its row.
local function count_exposures(queue, id, ended)
  local open = EXPERIMENT_OPEN .. id
  if redis.call('EXISTS', open) == 0 or redis.call('HEXISTS', open, 'closed') == 1 then
    return
  end
  local counting_by_epoch = {}
  local by_unit, first = waiting_for(id, counting_by_epoch, program_of(queue))
  redis.call('HSET', open, 'closed', 1)
  redis.call('EXPIRE', open, SECONDS_CLOSED)
  if not first then
    return
  end
  local counting, cost = counting_by_epoch[first[1]], tonumber(ended.cost or 0)
  local micro_usd = math.floor(cost / 1000)
  local answer = EXPERIMENT_ANSWER .. id
  if ended.time and #counting.scores > 0 then
    redis.call('HSET', answer, 'exposure', table.concat({ unpack(first, 1, 6) }, ' '))
    redis.call('EXPIRE', answer, whole(ended.scored_within))
  end
  if ended.time then
    keep_row(counting, id, first, ended.row)
  end
  local payer = table.concat({ unpack(first, 1, 6) }, ' ')
  for key, sums in pairs(by_unit) do
    local paid = key == payer and cost or 0 -- one of them paid, whichever day or unit the others are of
    local its_counting = counting_by_epoch[sums.exposed[1]]
    count_calls(its_counting, sums.exposed, {
      sums.n, sums.n * ended.failed, sums.n * ended.fallback, sums.waited * 1000, paid, sums.n * (1 - ended.hit), sums.slow,
      sums.squares, paid > 0 and micro_usd * micro_usd or 0,
    })
    if ended.answer then
      deliver(its_counting, sums.exposed[2], { ended.answer, sums.exposed[4], sums.exposed[3], sums.n }, 1, 4)
    end
  end
  add_gathered()
  if ended.time then
    local slow = counting.slow_answer and ended.time > counting.slow_answer and 1 or 0
    add_both(counting.base .. first[2] .. ':answers', first[3], first[4], {
      1, cost, ended.time * 1000, slow, ended.tokens, micro_usd * micro_usd, ended.time * ended.time,
      ended.tokens * ended.tokens,
    }, 6)
    count_time(counting.base .. first[2] .. ':times', ended.time)
  end
end

local function close_exposures(queue, ...)
  survived(queue, count_exposures, queue, ...)
end

-- Counts the calls that wait for a run which ended without an answer.
local function fail_exposures(queue, id, cost)
  close_exposures(queue, id, { failed = 1, fallback = 0, hit = 0, cost = cost })
end
