-- Shared by the scripts on scheduled batches. Every time is in seconds of Redis's own clock.
--
--   dspy:v1:batch-schedule:<name>           the known times of a batch: sorted set of labels by the second they are due
--   dspy:v1:batch-schedule-seen:<name>      the second up to which its times are known
--   dspy:v1:batch-scheduled:<name>:<label>  a time, a hash: state, one of
--                                             pending  it waits for its turn
--                                             running  a runner has it: token, lease (the second that runs out), runner,
--                                                      started
--                                             done, failed  with exit_code, ended, note
--                                             skipped  later ones took its place
--                                           and losses, how often its runner was lost
local KEPT = 200

local function seconds(time)
  return string.format('%.3f', time)
end

local function times_key(name)
  return BATCH_SCHEDULE .. name
end

local function seen_key(name)
  return BATCH_SCHEDULE_SEEN .. name
end

local function time_key(name, label)
  return BATCH_SCHEDULED .. name .. ':' .. label
end

-- True if a time was claimed with this token and has not been claimed again since.
local function is_of(time, token)
  return redis.call('HGET', time, 'token') == token
end

-- Takes a time from a lost runner: it waits again, or has failed after too many losses.
local function lose(time, max_losses)
  if redis.call('HINCRBY', time, 'losses', 1) < max_losses then
    redis.call('HSET', time, 'state', 'pending')
  else
    redis.call('HSET', time, 'state', 'failed', 'ended', seconds(now_seconds()), 'note', 'its runner was lost too often')
  end
  redis.call('HDEL', time, 'token', 'lease')
end
