#!lua flags=allow-oom
-- Reads or changes the circuit breaker of a model, for the whole fleet. It works in a full Redis: the hash is small.
-- Libraries: guards/breaker_hash.
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
-- Reply: as in the library, with the state before the transition this made, if the call is admitted, and if it stands.
--
-- A row of failures begins with the first failure after a success and ends with the next success, over all transitions.
-- It is an outage once OUTAGE_QUESTIONS different questions stand in it and the breaker is not closed. A question that
-- failed in an earlier row is no evidence: others succeeded since. A question that failed in the present round of probes
-- lets others probe first; if none comes and it probes again, it begins the next round.
--
-- A damaged breaker, which is no hash or has a field of another type, is closed and begins anew.
question = question ~= '' and question or id
failed_in, failed_at = failed_in or 0, failed_at or 0
local OUTAGE_QUESTIONS, OUTAGES_KEPT = 5, 8

local now = now_microseconds()
local held, is_damaged = read_breaker(breaker)
if is_damaged then
  redis.call('DEL', breaker)
end
local state, epoch, failed, failures, successes, till, period, probe, probe_until, openings, moved_by, moved_from, row,
  questions, round, outages = unpack(held)

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
local reply = breaker_reply(now, state, epoch, failures, till, probe, probe_until, openings, row, round, outages)
reply[7], reply[8] = is_damaged and 'damaged' or moved_by == mover and moved_from or '', is_admitted and 1 or 0
if reply[11] then
  reply[11] = stands and 1 or 0
end
return reply
