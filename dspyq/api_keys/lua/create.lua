-- Creates a key of the API, and its tenant where there is none of that name.
-- Libraries: api_keys/changes.
-- Arguments:
--   id             of the key
--   digest         of the key
--   tenant         that the key belongs to
--   daily          the tenant's limit of a day in nano-dollars, only for a new tenant; '' for none
--   daily_field    its field among the limits
--   entry          for the log
--   fields...      pairs of further fields and values of the key
-- Reply: 1; 0 if another key has that id; -1 if the tenant exists and a limit was stated. A repeat after a lost
-- connection replies 1.
local stored = fields_of(id).sha256
if stored then
  return stored == digest and 1 or 0
end
if redis.call('SADD', TENANTS, tenant) == 0 and daily ~= '' then
  return -1
end
if daily ~= '' then
  redis.call('HSET', BUDGET_LIMITS, daily_field, daily)
end
redis.call('HSET', API_KEY .. id, 'sha256', digest, 'tenant', tenant, 'created_at', present(), unpack(fields))
redis.call('SADD', API_KEYS, id)
note_change(id, entry)
return 1
