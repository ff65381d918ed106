#!lua flags=allow-oom
-- Marks a call that is not held any more as settled, so that a repeated settlement does not charge it once more.
-- Libraries: guards/accounts.
-- Arguments:
--   id  of the call
-- Reply: 1 where it is held, or was charged its bound; otherwise 0.
local held = read_hold(id)
if not held then
  mark_settled(id)
end
return held and held.state ~= 'settled' and 1 or 0
