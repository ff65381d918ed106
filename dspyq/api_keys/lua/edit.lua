-- Writes the rights, limits, name or expiry of a key of the API, unless another change of those came first.
-- Libraries: api_keys/changes.
-- Arguments:
--   id           of the key
--   expected     the version that the change was made from
--   change       a random name of the change
--   entry        for the log
--   fields...    pairs of field and value
-- Reply: 1; 0 if there is no such key; 2 if it is revoked; 3 if another change came first. A repeat after a lost
-- connection replies 1.
local key = fields_of(id)
if not key.sha256 then
  return 0
end
if key.is_revoked then
  return 2
end
if key.change == change then
  return 1
end
if key.version ~= expected then
  return 3
end
redis.call('HSET', API_KEY .. id, 'version', whole(key.version + 1), 'change', change, unpack(fields))
note_change(id, entry)
return 1
