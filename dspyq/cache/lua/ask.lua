-- Looks a question up; if it has neither an answer nor a run, claims it and puts its job.
-- Libraries: cache/claiming, delivery/putting.
-- Arguments:
--   message  of the job, for a worker
-- Reply: as of claim.lua; the job is put only where it is claim.
return claim(function(now)
  return put_job({
    id = id,
    message = message,
    queue = queue,
    priority = priority,
    delay_seconds = 0,
    generation = 0,
    input_hash = string.sub(alias, #PREDICTION + 1),
    seen = '*', -- the claim has checked it
    tenant = tenant == '-' and '' or tenant,
  }, now)
end)
