#!lua flags=no-writes
-- As probe, for scripts that read alone.
-- Reply: as of probe.
return redis.call('EXISTS', SEQUENCE)
