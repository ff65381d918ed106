#!lua flags=allow-oom
-- Marks a call that is not held any more as settled, so that a repeated settlement does not charge it once more.
-- Libraries: guards/accounts.
-- Arguments:
--   id  of the call
-- Reply: 1 where it is held, or was charged its bound; 0 where it is settled; 2 where nothing is known of it: it was settled
--   long ago, or its hold was lost.
local held = read_hold(id)
if not held then
  mark_settled(id)
  return 2
end
return held.state ~= 'settled' and 1 or 0
