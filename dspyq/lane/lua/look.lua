#!lua flags=no-writes
-- Looks at a call before it is left to a lane.
-- Libraries: lane/lines.
-- Arguments:
--   model     the lane's
--   task      of the call
--   id        the line's custom id
--   call_key  its digest and occurrence
--   batch     that pays
-- Reply: {1 where the line is in the lane, 1 where a caller waits who is no batch, 1 where the job's calls are to be live,
--   rounds, strays, lines that the job waits for, 1 where a row of its batch that has begun waits for
--   money, a salvaged reply or ''}.
local alias = alias_of(task)
local begun_waits = 0
for _, member in ipairs(redis.call('ZRANGEBYSCORE', part(model, 'unpaid'), '-inf', '(0', 'LIMIT', 0, 100)) do
  if string.match(member, '^[^:]*') == batch then
    begun_waits = 1
    break
  end
end
local job = redis.call('HMGET', JOB .. task, 'rounds', 'strays', 'live', 'lines')
return {
  redis.call('HEXISTS', part(model, 'lines'), id),
  alias and redis.call('HEXISTS', alias, 'live') or 0,
  tonumber(job[3] or 0),
  tonumber(job[1] or 0),
  tonumber(job[2] or 0),
  tonumber(job[4] or 0),
  begun_waits,
  redis.call('HGET', part(model, 'salvaged'), call_key) or '',
}
