-- Shared by the scripts that go by the state of a program's experiment.

local function program_of(queue)
  return string.match(queue, '^([^.]*)')
end

-- The state of the experiment of a queue's program, as its version and itself, each '' where there is none; nil where it is
-- still the one that gave a call its variant: of the version seen, '' for none known, * where none does.
local function other_state(queue, seen)
  if seen == '*' then
    return nil
  end
  local state = read_own('HMGET', EXPERIMENT_STATE .. program_of(queue), 'version', 'state') or {}
  local version = state[1] or ''
  if version == seen then
    return nil
  end
  return { version, state[2] or '' }
end
