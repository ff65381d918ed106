#!lua flags=allow-oom
-- Reads or changes the circuit breaker of a model, for the whole fleet. It works in a full Redis: the hash is small.
-- Keys: the breaker.
-- Arguments: what is done; for all but read also: id of the call (or of an operator's command); epoch in which the call
--   began; failure threshold; success threshold; how long the first opening lasts; how long the longest; how long a
--   probe may take.
-- What is done:
--   read       nothing
--   admit      a call asks whether it may be made; where the opening is over, it becomes the probe
--   failed, succeeded, nothing   what a call said of its provider; of an earlier epoch it is ignored
--   open, close, reset           an operator's command; open lasts until another, reset forgets the counts too
-- Every time is in microseconds of Redis's own clock. A repetition changes nothing and has the same reply.
-- Reply: {state, epoch, failures in a row, time until a probe (-1: an operator must close it), time the probe out now
--   has left (0: there is none), openings, state before the transition this made or '', 1 if the call is admitted, now}
--
-- The hash has these fields:
--   state              closed (where missing), open or half-open
--   epoch              the time of the last transition, always rising
--   failed, failures   ids of the calls that failed in a row while closed, and their number
--   successes          probes in a row that succeeded while half-open
--   until, period      when an opening is over, and how long it is; until is -1 where an operator opened it
--   probe, probe_until the call that may be made while half-open, and when that is forgotten
--   openings           how often it has opened
--   moved_by, moved_from   who made the last transition, and from which state
local breaker = KEYS[1]
local what, id, of_epoch = ARGV[1], ARGV[2] or '', tonumber(ARGV[3] or 0)
local failure_threshold, success_threshold = tonumber(ARGV[4]), tonumber(ARGV[5])
local first_period, longest_period, lease = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local held = redis.call('HMGET', breaker, 'state', 'epoch', 'failed', 'failures', 'successes', 'until', 'period',
  'probe', 'probe_until', 'openings', 'moved_by', 'moved_from')
local state, epoch = held[1] or 'closed', tonumber(held[2] or 0)
local failed, failures, successes = held[3] or '', tonumber(held[4] or 0), tonumber(held[5] or 0)
local till, period = tonumber(held[6] or 0), tonumber(held[7] or 0)
local probe, probe_until, openings = held[8] or '', tonumber(held[9] or 0), tonumber(held[10] or 0)
local moved_by, moved_from = held[11] or '', held[12] or ''

local mover = id .. ':' .. what
local is_changed, is_admitted = false, false

local function move(new)
  moved_by, moved_from = mover, state
  state, epoch = new, math.max(epoch + 1, now)
  failed, failures, successes, probe, probe_until = '', 0, 0, '', 0
  is_changed = true
end

local function open(for_period)
  if state ~= 'open' then
    openings = openings + 1
  end
  move('open')
  period = math.min(for_period, longest_period)
  till = now + period
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
    end
    is_admitted = true
  end
elseif what == 'failed' and of_epoch == epoch then
  if state == 'closed' and not string.find(failed, id, 1, true) then
    failed, failures = failed .. id .. ' ', failures + 1
    is_changed = true
    if failures >= failure_threshold then
      open(first_period)
    end
  elseif state == 'half-open' and probe == id then
    open(period * 2)
  end
elseif what == 'succeeded' and of_epoch == epoch then
  if state == 'closed' and failures > 0 then
    failed, failures = '', 0
    is_changed = true
  elseif state == 'half-open' and probe == id then
    successes, probe, probe_until = successes + 1, '', 0
    is_changed = true
    if successes >= success_threshold then
      move('closed')
    end
  end
elseif what == 'nothing' and probe == id then
  probe, probe_until = '', 0
  is_changed = true
elseif what == 'open' then
  open(first_period)
  till = -1
elseif what == 'close' or what == 'reset' then
  move('closed')
  if what == 'reset' then
    openings = 0
  end
end

local function whole(number)
  return string.format('%.0f', number)
end

if is_changed then
  redis.call('HSET', breaker, 'state', state, 'epoch', whole(epoch), 'failed', failed, 'failures', failures,
    'successes', successes, 'until', whole(till), 'period', whole(period), 'probe', probe,
    'probe_until', whole(probe_until), 'openings', openings, 'moved_by', moved_by, 'moved_from', moved_from)
end
local left = 0
if state == 'open' then
  left = till < 0 and -1 or math.max(0, till - now)
end
local probe_left = probe ~= '' and math.max(0, probe_until - now) or 0
local transition = moved_by == mover and moved_from or ''
return { state, epoch, failures, left, probe_left, openings, transition, is_admitted and 1 or 0, now }
