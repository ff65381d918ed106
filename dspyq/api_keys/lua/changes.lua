-- Changes of API keys: each is logged, and announced to every process that verifies keys.

local function note_change(id, entry)
  redis.call('XADD', API_KEY_LOG, 'MAXLEN', '~', MOST_LOGGED_KEY_CHANGES, '*', 'key', id, 'entry', entry)
  redis.call(PUBLISH, API_KEY_CHANGES, id)
end

local function present()
  return string.format('%.3f', now_seconds())
end

-- The fields of a key that lives.
local function fields_of(id)
  local found = redis.call('HMGET', API_KEY .. id, 'sha256', 'revoked_at', 'change', 'version')
  return { sha256 = found[1], is_revoked = found[2], change = found[3], version = found[4] or '0' }
end
