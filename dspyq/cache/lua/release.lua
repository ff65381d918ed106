#!lua flags=allow-oom
-- Ends a run without an answer: the next caller computes anew.
-- Keys: alias.
-- Arguments: task id; the run's fence, '' for none; queue; the batch that pays for it where it is to end only
--   for that one, else ''; then pairs of statistics field and amount, none where a claim is given back.
-- Reply: 1; 0 where another run has taken the job; 2 where others wait for it than the batch, or may, and where a claim is
--   given back whose job was sent after all: then nothing is changed.
local alias = KEYS[1]
local id, fence, queue, batch = unpack(ARGV, 1, 4)
local failed = #ARGV > 4
local is_given_back = fence == '' and not failed -- by a producer that does not know whether its job was sent

if not holds(id, fence) then
  return 0
end
local held = redis.call('HMGET', alias, 'pending', 'joined', 'answered', 'uncounted', 'batch')
if is_given_back and (held[3] == id or redis.call('EXISTS', PREFIX .. 'job:' .. id) == 1) then
  return 2
end
local is_batch_s_alone = held[1] == id and tonumber(held[2]) == 0 and not held[4] and held[5] == batch
if (batch or '') ~= '' and not is_batch_s_alone then
  return 2
end
count(queue, { unpack(ARGV, 5) })
if held[3] == id then -- it ended otherwise: what is stored under its id may be an error
  redis.call('HDEL', alias, 'answered', 'until', 'cost')
  if not held[1] then
    redis.call('DEL', alias)
  end
end
if held[1] == id then
  if failed then
    count(queue, { 'failures', held[2] })
  end
  release(alias)
end
return 1
