#!lua flags=allow-oom
-- Ends a run without an answer: the next caller computes anew.
-- Keys: alias.
-- Arguments: task id; the run's fence, '' for none; queue; then pairs of statistics field and amount, none where a claim
--   is given back.
-- Reply: 1, or 0 where another run has taken the job.
local alias = KEYS[1]
local id, fence, queue = ARGV[1], ARGV[2], ARGV[3]
local failed = #ARGV > 3

if not holds(id, fence) then
  return 0
end
count(queue, { unpack(ARGV, 4) })
local held = redis.call('HMGET', alias, 'pending', 'joined', 'answered')
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
