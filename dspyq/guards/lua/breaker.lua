#!lua flags=allow-oom
-- Reads or changes the circuit breaker of a model, for the whole fleet. It works in a full Redis: the hash is small.
-- Keys:
--   breaker                    BREAKER: of the model
-- Arguments:
--   what                       is done; all that follows is for all but read
--   id?                        of the call, or of an operator's command
--   of_epoch:number?           in which the call began
--   failure_threshold:number?  failures in a row that open it
--   success_threshold:number?  probes in a row that close it
--   first_period:number?       how long the first opening lasts
--   longest_period:number?     how long the longest
--   lease:number?              how long a probe may take
--   question?                  that is asked, for admit and failed; so are the two that follow
--   failed_in:number?          the row in which the question failed last, 0 where it did not
--   failed_at:number?          when it did
-- What is done:
--   read       nothing
--   admit      a call requests admission; if the opening is over, it becomes the probe
--   failed, succeeded, nothing   a call's evidence about its provider; of an earlier epoch it is ignored
--   open, close, reset           an operator's command; open lasts until another, reset forgets the counts too
-- Every time is in microseconds of Redis's own clock. A repetition changes nothing and has the same reply.
-- Reply: {state, epoch, failures in a row, time until a probe (-1: an operator must close it), time the probe out now
--   has left (0: there is none), openings, state before the transition this made or '', 1 if the call is admitted, now}
--   and behind these, but where no row goes on and none was an outage:
--   {row of failures (0: the latest call succeeded), 1 if the call's failure stands in it, rows that were outages, when
--   the present round of probes began, time since a probe may be made (negative: until it may)}
--
-- A row of failures begins with the first failure after a success and ends with the next success, over all transitions.
-- It is an outage once OUTAGE_QUESTIONS different questions stand in it and the breaker is not closed. A question that
-- failed in an earlier row is no evidence: others succeeded since. A question that failed in the present round of probes
-- lets others probe first; if none comes and it probes again, it begins the next round.
--
-- A damaged breaker, which is no hash or has a field of another type, is closed and begins anew.
--
-- The hash has these fields:
--   state              closed (where missing), open or half-open
--   epoch              the time of the last transition, always rising
--   failed, failures   ids of the calls that failed in a row while closed, and their number
--   successes          probes in a row that succeeded while half-open
--   until, period      when an opening is over, and how long it is; until is -1 where an operator opened it
--   probe, probe_until the call that may be made while half-open, and when that is forgotten
--   openings           how often it has opened
--   moved_by, moved_from   the event that made the last transition, and the state before it
--   row, questions     when the present row of failures began (0: there is none), and the different questions in it, up
--                      to OUTAGE_QUESTIONS
--   round              when the present round of probes began
--   outages            the last OUTAGES_KEPT rows that were outages
question = question ~= '' and question or id
failed_in, failed_at = failed_in or 0, failed_at or 0
local OUTAGE_QUESTIONS, OUTAGES_KEPT = 5, 8

local now = now_microseconds()
local held = redis.pcall('HMGET', breaker, 'state', 'epoch', 'failed', 'failures', 'successes', 'until', 'period',
  'probe', 'probe_until', 'openings', 'moved_by', 'moved_from', 'row', 'questions', 'round', 'outages')

local STATES = { closed = true, open = true, ['half-open'] = true }
local TEXTS = { [1] = true, [3] = true, [8] = true, [11] = true, [12] = true, [14] = true, [16] = true }
local MOST = 2 ^ 52
local is_damaged = held.err or not STATES[held[1] or 'closed'] or string.find(held[16] or '', '[^%d ]')
  or string.find(held[16] or '', '%d' .. string.rep('%d', 16))
for index = 1, 16 do
  if not is_damaged and held[index] and not TEXTS[index] then
    local number = tonumber(held[index])
    is_damaged = not (number and number >= -1 and number < MOST)
  end
end
if is_damaged then
  redis.call('DEL', breaker)
  held = { [2] = '0' }
end
local state, epoch = held[1] or 'closed', tonumber(held[2] or 0)
local failed, failures, successes = held[3] or '', tonumber(held[4] or 0), tonumber(held[5] or 0)
local till, period = tonumber(held[6] or 0), tonumber(held[7] or 0)
local probe, probe_until, openings = held[8] or '', tonumber(held[9] or 0), tonumber(held[10] or 0)
local moved_by, moved_from = held[11] or '', held[12] or ''
local row, questions, round = tonumber(held[13] or 0), held[14] or '', tonumber(held[15] or 0)
local outages = held[16] or ''

local mover = id .. ':' .. what
local is_changed, is_admitted, stands = false, false, false

local function words(text)
  return select(2, string.gsub(text, '%S+', ''))
end

local function move(new)
  moved_by, moved_from = mover, state
  state, epoch = new, math.max(epoch + 1, now)
  failed, failures, successes, probe, probe_until = '', 0, 0, '', 0
  is_changed = true
end

local function end_row()
  row, questions = 0, ''
end

local function join_row()
  stands, is_changed = true, true
  if row == 0 then
    row, round, questions = now, now, ''
  end
  local is_evidence = failed_in == 0
  if is_evidence and words(questions) < OUTAGE_QUESTIONS and not string.find(questions, question .. ' ', 1, true) then
    questions = questions .. question .. ' '
  end
  local name = whole(row) .. ' '
  if state ~= 'closed' and words(questions) >= OUTAGE_QUESTIONS and not string.find(outages, name, 1, true) then
    outages = outages .. name
    if words(outages) > OUTAGES_KEPT then
      outages = string.gsub(outages, '^%S+ ', '')
    end
  end
end

local function open(for_period)
  if state ~= 'open' then
    openings = openings + 1
  end
  move('open')
  period = math.min(for_period, longest_period)
  till = now + period
end

if is_damaged then
  move('closed')
  moved_by = ''
end
if what == 'admit' then
  if state == 'open' and till >= 0 and now >= till then
    move('half-open')
  end
  if state == 'closed' then
    is_admitted = true
  elseif state == 'half-open' and (probe == '' or probe == id or now >= probe_until) then
    if probe ~= id then
      probe, probe_until = id, now + lease
      is_changed = true
      if row > 0 and failed_at >= round then
        round = now
      end
    end
    is_admitted = true
  end
elseif what == 'failed' then
  if of_epoch == epoch and state == 'closed' then
    if not string.find(failed, id, 1, true) then
      if failures == 0 then
        end_row()
      end
      failed, failures = failed .. id .. ' ', failures + 1
      if failures >= failure_threshold then
        open(first_period)
      end
    end
    join_row()
  elseif of_epoch == epoch and state == 'half-open' and probe == id then
    open(period * 2)
    join_row()
  elseif state ~= 'closed' then -- it began before the breaker opened
    join_row()
  end
elseif what == 'succeeded' and of_epoch == epoch then
  if state == 'closed' and failures > 0 then
    failed, failures = '', 0
    end_row()
    is_changed = true
  elseif state == 'half-open' and probe == id then
    successes, probe, probe_until = successes + 1, '', 0
    end_row()
    is_changed = true
    if successes >= success_threshold then
      move('closed')
    end
  end
elseif what == 'nothing' and probe == id then
  probe, probe_until, till = '', 0, now
  is_changed = true
elseif what == 'open' then
  open(first_period)
  till = -1
elseif what == 'close' or what == 'reset' then
  move('closed')
  end_row()
  if what == 'reset' then
    openings = 0
  end
end

if is_changed then
  redis.call('HSET', breaker, 'state', state, 'epoch', whole(epoch), 'failed', failed, 'failures', failures,
    'successes', successes, 'until', whole(till), 'period', whole(period), 'probe', probe,
    'probe_until', whole(probe_until), 'openings', openings, 'moved_by', moved_by, 'moved_from', moved_from,
    'row', whole(row), 'questions', questions, 'round', whole(round), 'outages', outages)
end
local left = 0
if state == 'open' then
  left = till < 0 and -1 or math.max(0, till - now)
end
local probe_left = probe ~= '' and math.max(0, probe_until - now) or 0
local transition = is_damaged and 'damaged' or moved_by == mover and moved_from or ''
local reply = { state, epoch, failures, left, probe_left, openings, transition, is_admitted and 1 or 0, now }
if row > 0 or outages ~= '' then
  reply[10], reply[11], reply[12], reply[13], reply[14] = row, stands and 1 or 0, outages, round, now - till
end
return reply
