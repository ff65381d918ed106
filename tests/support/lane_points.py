"""The points at which ``tests/support/lane_failpoints.py`` ends or freezes a worker."""

from __future__ import annotations

#: The key in the Redis of money that names a point; the first process that reaches it deletes the key and dies.
KEY = "lane-failpoint"
#: Before the name of a point: the process is frozen there.
FROZEN = "frozen "
#: The list beside it of where processes died or froze: the second since 1970, and the number of the lane's spine.
DEATHS_KEY = "lane-deaths"
#: The lease of a lane's runner in workers with these points: shorter than it is, so that many deaths take minutes.
RUNNER_LEASE_SECONDS = 3.0
#: In their order. At ``mid-land`` the money is settled, and the lines are not landed.
POINTS = (
    "before-sleep", "after-fill", "after-upload", "before-create", "after-create", "after-submit", "mid-land",
    "after-land", "before-close",
)  # fmt: skip
