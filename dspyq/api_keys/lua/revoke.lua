-- Revokes a key of the API, for good.
-- Libraries: api_keys/changes.
-- Arguments:
--   id       of the key
--   entry    for the log
-- Reply: 1; 0 if there is no such key; 2 if it was revoked before.
local key = fields_of(id)
if not key.sha256 then
  return 0
end
if key.is_revoked then
  return 2
end
redis.call('HSET', API_KEY .. id, 'revoked_at', present())
note_change(id, entry)
return 1
