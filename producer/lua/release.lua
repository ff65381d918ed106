-- Ends a run without an answer: the next caller computes anew.
-- KEYS  1 alias   2 statistics of the variant
-- ARGV  1 task id   2 fence, '' for none   3… pairs of statistics field and amount
-- Reply 1, or 0 where another run has taken the job
local alias, id = KEYS[1], ARGV[1]
if not holds(id, ARGV[2]) then return 0 end
count(KEYS[2], {unpack(ARGV, 3)})
local held = redis.call('HMGET', alias, 'pending', 'joined')
if held[1] == id then
  if #ARGV > 2 then count(KEYS[2], {'failures', held[2]}) end
  release(alias)
end
return 1
