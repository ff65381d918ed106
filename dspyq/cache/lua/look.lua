-- Looks many questions up, and counts those that are answered.
-- Keys: their aliases.
-- Arguments: label of the current day; prefix of result keys, '' where answers live elsewhere; the most bytes of results
--   to return; then the queue of each.
-- Reply: {task ids, results, milliseconds each answer is good for, nano-dollars each cost}, in the order of the keys, up
--   to where the bytes were enough. A task id is nil where nothing answers; a result is '' where answers live elsewhere.
local day, result_prefix, most_bytes = ARGV[1], ARGV[2], tonumber(ARGV[3])
local is_here = result_prefix ~= ''
local time, bytes = now(), 0
local ids, results, left, costs = {}, {}, {}, {}
local hits, saved = {}, {}

for index, alias in ipairs(KEYS) do
  local held = redis.call('HMGET', alias, 'answered', 'until', 'cost')
  local id, till = held[1], tonumber(held[2] or 0)
  local result = id and till > time and (not is_here or redis.call('GET', result_prefix .. id))
  ids[index], results[index], left[index], costs[index] = false, '', 0, 0
  if result then
    local queue, cost = ARGV[index + 3], tonumber(held[3] or 0)
    ids[index], left[index], costs[index] = id, till - time, whole(cost)
    hits[queue] = (hits[queue] or 0) + 1
    saved[queue] = (saved[queue] or 0) + cost
    if is_here then
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
  avoided(day, queue, saved[queue])
end
return { ids, results, left, costs }
