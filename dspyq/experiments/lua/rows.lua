-- Shared by the scripts that keep computed answers with their contents, for exports, where an experiment states it.
--
-- EXPERIMENT_ROWS .. '<program>:<epoch>' is a stream of them: id, of the task; exposure, of its first call; row, which is
-- '<question> <fingerprint> <content>'. EXPERIMENT_KEPT .. '<program>:<epoch>' is a hash of what came of each since:
--   n <id>                 calls that it was served to
--   s <id>, f <id>         its scores and its judgements: '<name> <number> <sum in millionths of the range>' for each name
--   q <arm> <question>     the latest row of a question in an arm
local ROWS_TRIMMED_AT_ONCE = 100

-- Drops the oldest rows above the number that is kept.
local function trim_rows(counting, rows, kept)
  local surplus = math.min(redis.call('XLEN', rows) - counting.keep_rows, ROWS_TRIMMED_AT_ONCE)
  if surplus <= 0 then
    return
  end
  for _, entry in ipairs(redis.call('XRANGE', rows, '-', '+', 'COUNT', surplus)) do
    local id, exposure, row = entry[2][2], entry[2][4], entry[2][6]
    local latest = 'q ' .. string.match(exposure, '^%S+ (%S+)') .. ' ' .. string.match(row, '^%x+')
    if redis.call('HGET', kept, latest) == id then
      redis.call('HDEL', kept, latest)
    end
    redis.call('HDEL', kept, 'n ' .. id, 's ' .. id, 'f ' .. id)
    redis.call('XDEL', rows, entry[1])
  end
end

-- Keeps a computed answer. row: '' for none.
local function keep_row(counting, id, exposed, row)
  local question = string.match(row, '^(%x+) ')
  if counting.keep_rows == 0 or not question then
    return
  end
  local rows, kept = EXPERIMENT_ROWS .. counting.name, EXPERIMENT_KEPT .. counting.name
  redis.call('XADD', rows, '*', 'id', id, 'exposure', table.concat({ unpack(exposed, 1, 6) }, ' '), 'row', row)
  redis.call('HSET', kept, 'n ' .. id, 0, 'q ' .. exposed[2] .. ' ' .. question, id)
  trim_rows(counting, rows, kept)
  redis.call('EXPIRE', rows, SECONDS_OF_ROWS)
  redis.call('EXPIRE', kept, SECONDS_OF_ROWS)
end

-- Notes that a kept answer was served to calls.
local function note_served(counting, id, calls)
  local kept, served = EXPERIMENT_KEPT .. counting.name, 'n ' .. id
  if counting.keep_rows > 0 and redis.call('HEXISTS', kept, served) == 1 then
    redis.call('HINCRBY', kept, served, calls)
  end
end

-- Adds to the scores, 's', or the judgements, 'f', of a kept answer.
local function note_judged(counting, kind, id, name, number, sum)
  local kept = EXPERIMENT_KEPT .. counting.name
  if counting.keep_rows == 0 or redis.call('HEXISTS', kept, 'n ' .. id) == 0 then
    return
  end
  local words, written = {}, redis.call('HGET', kept, kind .. ' ' .. id) or ''
  for word in string.gmatch(written, '%S+') do
    words[#words + 1] = word
  end
  local at = #words + 1
  for index = 1, #words, 3 do
    if words[index] == name then
      at = index
    end
  end
  words[at] = name
  words[at + 1] = whole(tonumber(words[at + 1] or 0) + number)
  words[at + 2] = whole(tonumber(words[at + 2] or 0) + sum)
  redis.call('HSET', kept, kind .. ' ' .. id, table.concat(words, ' '))
end

-- Adds a judgement to the latest row of its question.
local function note_feedback(counting, arm, question, name, number, sum)
  if counting.keep_rows > 0 then
    local id = redis.call('HGET', EXPERIMENT_KEPT .. counting.name, 'q ' .. arm .. ' ' .. question)
    if id then
      note_judged(counting, 'f', id, name, number, sum)
    end
  end
end
