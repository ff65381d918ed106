-- Looks many questions up, and counts those that are answered.
-- Libraries: cache/claims.
-- Keys:
--   aliases...         PREDICTION: of the questions
-- Arguments:
--   day                label of the current day
--   is_here            '1' where answers live in this Redis, else ''
--   most_bytes:number  of results to return
--   tenant?            of all callers, '' for none
--   queues...          the queue of each
-- Reply: {task ids, results, milliseconds each answer is good for, nano-dollars each cost}, in the order of the keys, up
--   to where the bytes were enough. A task id is nil without an answer; a result is '' if answers live elsewhere.
local time, bytes = now_milliseconds(), 0
local ids, results, left, costs = {}, {}, {}, {}
local hits, saved = {}, {}

for index, alias in ipairs(aliases) do
  local held = read_own('HMGET', alias, 'answered', 'until', 'cost') or {}
  local id, till = held[1], tonumber(held[2] or 0)
  local result = id and till > time and (is_here ~= '1' or read_own('GET', RESULT .. id))
  ids[index], results[index], left[index], costs[index] = false, '', 0, 0
  if result then
    local queue, cost = queues[index], tonumber(held[3] or 0)
    ids[index], left[index], costs[index] = id, till - time, whole(cost)
    hits[queue] = (hits[queue] or 0) + 1
    saved[queue] = (saved[queue] or 0) + cost
    if is_here == '1' then
      results[index] = result
      bytes = bytes + #result
      if bytes >= most_bytes then
        break
      end
    end
  end
end
for queue, number in pairs(hits) do
  count(queue, { 'hits_redis', number })
  avoided(day, queue, saved[queue], tenant)
end
return { ids, results, left, costs }
