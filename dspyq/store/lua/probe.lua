#!lua flags=allow-oom
-- Changes nothing: it checks that the server runs scripts like ours, which build the names of their keys.
-- Reply: 1 if a job was ever put, else 0.
return redis.call('EXISTS', SEQUENCE)
