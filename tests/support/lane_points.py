"""The points at which ``tests/support/lane_failpoints.py`` ends a worker."""

from __future__ import annotations

#: The key in Redis that names a point; the first process that reaches it deletes the key and dies.
KEY = "lane-failpoint"
#: In their order. At ``mid-land`` the money is settled, and the lines are not landed.
POINTS = (
    "before-sleep", "after-fill", "after-upload", "before-create", "after-create", "after-submit", "mid-land",
    "after-land", "before-close",
)  # fmt: skip
