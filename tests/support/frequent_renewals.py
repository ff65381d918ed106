"""Has a worker hold a lane's money for a minute only, and renew it each quarter of a second.

Named in ``workers.imports``.
"""

from __future__ import annotations

from dspyq.lane import deferral, runner

LEASE_SECONDS = 60.0

deferral.LEASE_SECONDS = runner.LEASE_SECONDS = LEASE_SECONDS
runner._RENEWALS_PER_LEASE = 240  # noqa: SLF001 - no setting states it
