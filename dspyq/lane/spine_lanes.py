"""The lanes of a worker where there are several spines: a call waits on the spine of its question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspyq.store.spines import current_spine

if TYPE_CHECKING:
    from dspyq.guards.admission import Admission
    from dspyq.guards.call import Call
    from dspyq.guards.call_records import JobRun
    from dspyq.guards.ledger import Ledger
    from dspyq.lane.deferral import DeferredCalls


class LanesOfSpines:
    """Lanes of all served spines.

    Attributes:
        of: Those of each spine, by its number.
    """

    def __init__(self) -> None:
        self.of: dict[int, DeferredCalls] = {}

    def defer(self, ledger: Ledger, job: JobRun, admission: Admission, call: Call, key: str) -> bytes | None:
        """Leave a call to its model's lane on the active spine; see ``dspyq.guards.lanes``."""
        spine = current_spine()
        deferred = self.of.get(spine.number) if spine is not None else None
        return None if deferred is None else deferred.defer(ledger, job, admission, call, key)
