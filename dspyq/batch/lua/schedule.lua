-- Shared by the scripts on scheduled batches. Keys are built inside the scripts, so this is for one Redis, not for Redis
-- Cluster. Every time is in seconds of Redis's own clock.
--
--   dspy:v1:batch-schedule:<name>           the known times of a batch: sorted set of labels by the second they are due
--   dspy:v1:batch-schedule-seen:<name>      the second up to which its times are known
--   dspy:v1:batch-scheduled:<name>:<label>  a time, a hash: state, one of
--                                             pending  it waits for its turn
--                                             running  somebody has it: token, lease (the second that runs out), runner,
--                                                      started
--                                             done, failed  with exit_code, ended, note
--                                             skipped  later ones took its place
--                                           and losses, how often its runner was lost
local PREFIX = 'dspy:v1:'
local KEPT = 200

local function now()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1e6
end

local function seconds(time)
  return string.format('%.3f', time)
end

local function times_key(name)
  return PREFIX .. 'batch-schedule:' .. name
end

local function seen_key(name)
  return PREFIX .. 'batch-schedule-seen:' .. name
end

local function time_key(name, label)
  return PREFIX .. 'batch-scheduled:' .. name .. ':' .. label
end

-- Whether a time was claimed with this token, and by nobody since.
local function is_of(time, token)
  return redis.call('HGET', time, 'token') == token
end

-- Takes a time from a runner that is lost: it waits again, or has failed where that came too often.
local function lose(time, max_losses)
  if redis.call('HINCRBY', time, 'losses', 1) < max_losses then
    redis.call('HSET', time, 'state', 'pending')
  else
    redis.call('HSET', time, 'state', 'failed', 'ended', seconds(now()), 'note', 'its runner was lost too often')
  end
  redis.call('HDEL', time, 'token', 'lease')
end
