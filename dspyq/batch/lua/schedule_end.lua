-- Ends the run of a time: it is done, has failed, waits again, or is lost, which is counted.
-- Keys: see schedule.lua.
-- Arguments: name; label; token; done, failed, pending or lost; exit code, '' for none; note; how often it may be lost.
-- Reply: 1, or 0 where the time is the caller's no more.
local time, token, state = time_key(ARGV[1], ARGV[2]), ARGV[3], ARGV[4]

if not is_of(time, token) then
  return 0
end
if redis.call('HGET', time, 'state') ~= 'running' then
  return 1 -- the script is repeated
end
redis.call('HSET', time, 'exit_code', ARGV[5], 'note', ARGV[6])
if state == 'lost' then
  lose(time, tonumber(ARGV[7]))
else
  redis.call('HSET', time, 'state', state, 'ended', seconds(now()))
end
return 1
