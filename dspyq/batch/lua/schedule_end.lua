-- Ends the run of a time: it is done, has failed, waits again, or is lost, which is counted.
-- Libraries: batch/schedule.
-- Arguments:
--   name               of the batch
--   label              of the time
--   token              of the claim
--   state              done, failed, pending or lost
--   exit_code          '' for none
--   note               why, in one line
--   max_losses:number  how often it may be lost
-- Reply: 1, or 0 if the caller has lost the time.
local time = time_key(name, label)

if not is_of(time, token) then
  return 0
end
if redis.call('HGET', time, 'state') ~= 'running' then
  return 1 -- the script is repeated
end
redis.call('HSET', time, 'exit_code', exit_code, 'note', note)
if state == 'lost' then
  lose(time, max_losses)
else
  redis.call('HSET', time, 'state', state, 'ended', seconds(now_seconds()))
end
return 1
