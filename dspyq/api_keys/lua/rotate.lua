-- Gives a key of the API a new secret; the one before stays good for a while.
-- Libraries: api_keys/changes.
-- Arguments:
--   id              of the key
--   digest          of the key with its new secret
--   grace:number    seconds for which the one before stays good
--   entry           for the log
-- Reply: 1; 0 if there is no such key; 2 if it is revoked. A repeat after a lost connection replies 1.
local key = fields_of(id)
if not key.sha256 then
  return 0
end
if key.is_revoked then
  return 2
end
if key.sha256 == digest then
  return 1
end
local ends_at = string.format('%.3f', now_seconds() + grace)
redis.call('HSET', API_KEY .. id, 'sha256', digest, 'previous_sha256', key.sha256, 'previous_until', ends_at)
note_change(id, entry)
return 1
