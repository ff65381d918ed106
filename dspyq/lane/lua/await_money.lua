#!lua flags=allow-oom
-- Notes that a row waits for money, before its job is delayed.
-- Libraries: lane/lines.
-- Arguments:
--   model           the lane's
--   task            the row's job
--   batch           that pays
--   replies:number  how many of its calls are paid and answered; 0 for a row that has not begun
-- Reply: 1, or 0 where there is no such job.
local score = redis.call('HGET', JOB .. task, 'score')
if not score then
  return 0
end
redis.call('ZADD', part(model, 'unpaid'), replies > 0 and -replies or math.max(0, tonumber(score)), batch .. ':' .. task)
redis.call('SADD', LANES, model)
return 1
