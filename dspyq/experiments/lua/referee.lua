-- Makes a worker the referee of experiments, or keeps it so.
-- Keys:
--   referee   EXPERIMENT_REFEREE: of the fleet
-- Arguments:
--   worker    its name
--   milliseconds:number   for how long
-- Reply: 1 if it is; 0 if another one is.
if redis.call('SET', referee, worker, 'NX', 'PX', whole(milliseconds)) then
  return 1
end
if redis.call('GET', referee) ~= worker then
  return 0
end
redis.call('PEXPIRE', referee, whole(milliseconds))
return 1
