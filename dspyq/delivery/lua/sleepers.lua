-- Shared by the scripts on jobs that sleep while a provider's batch interface has their model calls.
-- Libraries: delivery/jobs.
--
-- A sleeping job is a delayed one with these fields:
--   lines    how many of its calls are in a lane and not landed
--   shipped  how many of those have left for the provider, or are about to: they are paid
--   asleep   there while it sleeps
--   rounds   how often it fell asleep
--   live     there once its calls are to be made live
--   strays   in how many rounds its program did not ask again what it had asked before

-- Puts a sleeping job into its queue at its turn; true where it slept.
local function wake(id)
  if redis.call('HDEL', JOB .. id, 'asleep') == 1 and redis.call('ZREM', DELAYED, id) == 1 then
    enqueue(id)
    return true
  end
  return false
end

-- Notes that a caller who is no batch waits for a batch's run, and wakes its job: its next call is made live.
local function wake_for_live(alias, id)
  redis.call('HSET', alias, 'live', 1)
  wake(id)
end
