"""Lists in Redis by which processes that measure servers of their own take turns."""

from __future__ import annotations

#: What a process waits for: ``GO`` for a round, anything else to end.
TURN = "benchmark-turn"
GO = "go"
#: What it has found, as JSON; an empty object once it is ready.
FOUND = "benchmark-found"
