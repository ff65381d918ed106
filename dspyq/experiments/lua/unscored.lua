-- Takes answers that wait for their scores. Each is taken again after a while, unless its scores come, and dropped after
-- several times: its scorers ended their workers.
-- Libraries: experiments/sums.
-- Arguments:
--   program      whose answers they are
--   most:number  answers to take
-- Reply: of each its id, its exposure and its content.
local waiting = EXPERIMENT_UNSCORED .. program
local now, taken = now_milliseconds(), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', waiting, '-inf', whole(now), 'LIMIT', 0, most)) do
  local held = redis.call('HGET', waiting .. ':content', id)
  local line = held and string.find(held, '\n', 1, true)
  if not line or redis.call('HINCRBY', waiting .. ':content', 'taken ' .. id, 1) > MOST_SCORINGS then
    local exposed = end_waiting(program, id)
    if exposed then
      count_unscored(program, exposed, 'lost', '*')
    end
  else
    redis.call('ZADD', waiting, whole(now + SECONDS_TO_SCORE * 1000), id)
    taken[#taken + 1] = { id, string.sub(held, 1, line - 1), string.sub(held, line + 1) }
  end
end
return taken
