"""Protocol of the lanes: what a guarded call of a batch passes before it is made live."""

from __future__ import annotations

from typing import Protocol

from dspyq.guards.admission import Admission
from dspyq.guards.call import Call
from dspyq.guards.call_records import JobRun
from dspyq.guards.ledger import Ledger


class Lanes(Protocol):
    """Lanes to the batch interfaces of providers, as ``dspyq.lane`` serves them."""

    def defer(self, ledger: Ledger, job: JobRun, admission: Admission, call: Call, key: str) -> bytes | None:
        """Leave a call to its model's lane, if its batch has that lane.

        Args:
            ledger: Ledger of the running prediction.
            job: Owner of the call.
            admission: The guards of its model.
            call: The request.
            key: Its key in the ledger.

        Returns:
            A reply that landed before; None where the call is to be made live.

        Raises:
            Deferral: If it waits in the lane now: the run ends here, and its job sleeps.
            Interruption: If it may not be made; the run is marked with it.
            Exception: The lasting failure that landed for it before.
        """
