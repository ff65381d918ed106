-- Ends the interest of the client that streams a call, unless another of its connections has taken it over.
-- Keys:
--   interest  SERVE_STREAM: of the call
-- Arguments:
--   owner     the connection
-- Reply: 1 where it was the connection's, else 0.
if redis.call('GET', interest) ~= owner then
  return 0
end
return redis.call('DEL', interest)
