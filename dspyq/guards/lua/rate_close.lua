#!lua flags=allow-oom
-- Closes a model's gate for the fleet; or makes a question wait alone that is refused repeatedly while others are not.
-- Keys:
--   rate            RATE: of the model (its fields are described in rate_reserve.lua)
-- Arguments:
--   id              of this closing
--   reason          retry_after or account
--   stated:number   how long, in microseconds as every time here; '' for the default
--   default:number  how long by default
--   longest:number  how long at most
--   question?       of a retry_after: the question that was refused
--   row_before:number?      the row of its refusal before, 0 without one
--   refused_before:number?  the time of that
-- The default doubles with each closing until a call succeeds. Calls that fail while the gate is closed were sent before:
-- they may lengthen the closing, and double nothing. So a repetition changes nothing.
-- A question waits alone if others were answered since its refusal before, and fewer than QUESTIONS different ones were
-- refused since, itself included.
-- Reply: {microseconds until it opens, or until the question may be asked again, 1 if this closed an open gate, the row
--   of closings by default, named by the time of the first after a success; and of a question: now, the row of refusals,
--   named likewise, the time since which QUESTIONS different questions were refused, 0 where fewer were}
local QUESTIONS = 4

local now = now_microseconds()
local held = redis.call(
  'HMGET', rate, 'gate_until', 'gate_by', 'gate_reason', reason, reason .. '_row', 'refused', 'refused_row'
)
local gate_until = tonumber(held[1] or 0)
local is_closed = gate_until > now
local row = tonumber(held[5]) or now
local refused_row = tonumber(held[7]) or now
local crowded_at = 0

local function reply(left, is_new)
  return { left, is_new, row, now, refused_row, crowded_at }
end

-- Notes when the question was refused last, beside the others that were refused last.
local function note_refusal()
  local name = string.sub(redis.sha1hex(question), 1, 16)
  local times, refused = { now }, { whole(now) .. ':' .. name }
  for time, other in string.gmatch(held[6] or '', '(%d+):(%x+)') do
    if other ~= name and #times < QUESTIONS then
      times[#times + 1], refused[#refused + 1] = tonumber(time), time .. ':' .. other
    end
  end
  redis.call('HSET', rate, 'refused', table.concat(refused, ' '), 'refused_row', whole(refused_row))
  crowded_at = times[QUESTIONS] or 0
end

if question ~= '' then
  note_refusal()
end
if held[2] == id then
  return reply(math.max(0, gate_until - now), 1)
end
if (refused_before or 0) > 0 and row_before ~= refused_row and crowded_at < refused_before then
  return reply(math.min(stated or default, longest), 0)
end
local pause = stated
if not stated then
  if is_closed and held[3] == reason then
    return reply(gate_until - now, 0)
  end
  pause = tonumber(held[4]) or default
  redis.call('HSET', rate, reason, whole(math.min(pause * 2, longest)), reason .. '_row', whole(row))
end
pause = math.min(pause, longest)
if now + pause > gate_until then
  gate_until = now + pause
  redis.call('HSET', rate, 'gate_until', whole(gate_until), 'gate_reason', reason, 'gate_by', id)
end
return reply(gate_until - now, is_closed and 0 or 1)
