-- Shared by the scripts on aliases. Every time is in milliseconds of Redis's own clock.
--
-- An alias, dspy:v1:prediction:<input hash>, is a hash with these fields:
--   queue              <program>.<variant> whose question it is
--   answered, until    task id of the answer, and the time up to which it is served
--   cost               nano-dollars that the answer cost
--   pending, since     task id of the run under way, and the time of its claim
--   priority, joined   the turn of that run, and how many further callers wait for it
--   uncounted          set where more may wait for it than that
--   batch              id of the batch that claimed that run, and so pays for it
--   live               set once a caller who is no batch waits for a run that a batch claimed: no lane may delay it
--   tenant             the tenant that claimed the latest run, where one did
--   others             where tenants share answers: set once callers of others than that one wait for it

-- Removes a run from its alias; an answer that is still good stays.
local function release(alias)
  redis.call('HDEL', alias, 'pending', 'since', 'priority', 'joined', 'uncounted', 'batch', 'live')
  local till = redis.call('HGET', alias, 'until')
  if till then
    redis.call('PEXPIREAT', alias, till)
  else
    redis.call('DEL', alias)
  end
end
