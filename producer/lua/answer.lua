-- Stores a run's answer, tells its waiters, and lets the alias serve it.
-- KEYS  1 alias   2 statistics of the variant   3 channel of invalidations   4 result (left out where answers live elsewhere)
-- ARGV  1 task id   2 fence, '' for none   3 seconds to serve the answer, 0 for not at all   4 seconds to keep the result
--       5 result   6 input hash   7… pairs of statistics field and amount
-- Reply 1, or 0 where another run has taken the job: then nothing is stored
local alias, statistics, id, serve = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[3])
if not holds(id, ARGV[2]) then return 0 end
if KEYS[4] then
  redis.call('SET', KEYS[4], ARGV[5], 'EX', ARGV[4])
  redis.call('PUBLISH', KEYS[4], ARGV[5])
end
local held = redis.call('HMGET', alias, 'pending', 'answered', 'joined')
if held[2] == id then return 1 end  -- delivered again: it is counted and served already
count(statistics, {unpack(ARGV, 7)})
if held[1] ~= id then return 1 end  -- invalidated or forgotten meanwhile: it must not come back
count(statistics, {'successes', held[3]})
if serve == 0 then
  release(alias)
  return 1
end
local till = whole(now_milliseconds() + serve * 1000)
redis.call('HDEL', alias, 'pending', 'since', 'priority', 'joined')
redis.call('HSET', alias, 'answered', id, 'until', till)
redis.call('PEXPIREAT', alias, till)
if held[2] and held[2] ~= id then redis.call('PUBLISH', KEYS[3], ARGV[6]) end
return 1
