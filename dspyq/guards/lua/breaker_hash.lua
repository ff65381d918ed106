-- Shared by the scripts on circuit breakers. Every time is in microseconds of Redis's own clock.
-- Their reply: {state, epoch, failures in a row, time until a probe (-1: an operator must close it), time the probe out
--   now has left (0: there is none), openings, state before the transition a script made or '', 1 if it admits a call, now}
--   and behind these, but where no row goes on and none was an outage:
--   {row of failures (0: the latest call succeeded), 1 if the call's failure stands in it, rows that were outages, when
--   the present round of probes began, time since a probe may be made (negative: until it may)}
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

-- Returns the fields in the order above, and true for a breaker that is damaged, whose fields are those of a new one.
local function read_breaker(breaker)
  local held = redis.pcall('HMGET', breaker, 'state', 'epoch', 'failed', 'failures', 'successes', 'until', 'period',
    'probe', 'probe_until', 'openings', 'moved_by', 'moved_from', 'row', 'questions', 'round', 'outages')
  local STATES = { closed = true, open = true, ['half-open'] = true }
  local TEXTS = { [1] = 'closed', [3] = '', [8] = '', [11] = '', [12] = '', [14] = '', [16] = '' }
  local MOST = 2 ^ 52
  local is_damaged = held.err or not STATES[held[1] or 'closed'] or string.find(held[16] or '', '[^%d ]')
    or string.find(held[16] or '', '%d' .. string.rep('%d', 16))
  for index = 1, 16 do
    if not is_damaged and held[index] and not TEXTS[index] then
      local number = tonumber(held[index])
      is_damaged = not (number and number >= -1 and number < MOST)
    end
  end
  local fields = {}
  for index = 1, 16 do
    local field = not is_damaged and held[index]
    fields[index] = TEXTS[index] and (field or TEXTS[index]) or tonumber(field or 0)
  end
  return fields, is_damaged and true or false
end

local function breaker_reply(now, state, epoch, failures, till, probe, probe_until, openings, row, round, outages)
  local left = 0
  if state == 'open' then
    left = till < 0 and -1 or math.max(0, till - now)
  end
  local probe_left = probe ~= '' and math.max(0, probe_until - now) or 0
  local reply = { state, epoch, failures, left, probe_left, openings, '', 0, now }
  if row > 0 or outages ~= '' then
    reply[10], reply[11], reply[12], reply[13], reply[14] = row, 0, outages, round, now - till
  end
  return reply
end
