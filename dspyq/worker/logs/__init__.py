"""A worker's log: one line of JSON for each entry, written and pushed by threads that block no task."""
