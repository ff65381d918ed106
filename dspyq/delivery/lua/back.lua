#!lua flags=allow-oom
-- Returns unfinished jobs: to their queues at their old turns, now or later, to the queue of their version, or to the
-- dead letters.
-- Libraries: delivery/jobs.
-- Arguments:
--   delay_seconds:number  until they may be taken again, 0 for now, negative to set them aside
--   reason                for the latter
--   version_queue         the queue of their version, where this worker has another, otherwise ''
--   runs...               id and fence of each
-- Reply: the number returned; the other runs have lost their jobs.

local given = 0
for index = 1, #runs, 2 do
  local id, fence = runs[index], runs[index + 1]
  if holds(id, fence) then
    given = given + 1
    leave(id)
    if version_queue ~= '' then
      redis.call('HSET', JOB .. id, 'queue', version_queue, 'passed_on_at', seconds_from_now(0))
    end
    redis.call('HINCRBY', JOB .. id, 'fence', 1) -- or the run's next renewal would lease it again
    if delay_seconds < 0 then
      set_aside(id, reason)
    elseif delay_seconds > 0 then
      redis.call('ZADD', DELAYED, seconds_from_now(delay_seconds), id)
    else
      enqueue(id)
    end
  end
end
return given
