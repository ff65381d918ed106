#!lua flags=allow-oom
-- Passes an item that was taken from a queue's list on to a worker's consumer, which listens to that list from now on.
-- Keys:
--   passed_on  PASSED_ON: the worker's list of bells that were passed on
--   list       BELLS: the queue's
-- Arguments:
--   queue      its name
--   item       that was taken
--   has_room   '1' where the worker has room for a job, else ''
-- Reply: 1 where the bell was passed on; 0 where the item is in the queue's list again, in its place, for the next client.

local is_passed_on = item == '1' and has_room == '1'
if not is_passed_on then
  redis.call('RPUSH', list, item) -- also what is no bell: in a list of one worker's it would end with that worker
end
redis.call('LPUSH', passed_on, is_passed_on and cjson.encode(queue) or '1')
redis.call('EXPIRE', passed_on, SECONDS_PASSED_ON)
return is_passed_on and 1 or 0
