"""The flags of claim.lua: who looks a question up, and where it may be claimed while a list of servers changes."""

from __future__ import annotations

from dspyq.prediction.request import Request
from dspyq.store.spines import current_spine, process_spines


class ClaimFlags:
    """Flags of the look-ups on the active spine.

    Attributes:
        are_spread: Whether there are several spines.
    """

    def __init__(self) -> None:
        self._spines, self._spine = process_spines(), current_spine()
        self.are_spread = self._spines is not None

    def of_caller(self, request: Request) -> str:
        """Return the flags of a caller, who marks at the former owner that a question has moved."""
        if self._spines is None:
            return "c"
        return "cm" if self._is_former(request) else "cs"

    def of_worker(self, request: Request, *, counts: bool) -> str:
        """Return the flags of a worker for the question of a job on this spine.

        An unmarked question may still be claimed at its former owner: all others look there first, and join the run.
        """
        flags = "wc" if counts else "w"
        if self._spines is None:
            return flags
        is_owner = self._spines.owner(request.input_hash) is self._spine
        return flags + ("s" if is_owner or self._is_former(request) else "l")

    def of_onlooker(self, request: Request, *, counts: bool) -> str:
        """Return the flags of a worker for the question of a job on another spine; the former owner is marked."""
        return ("wc" if counts else "w") + ("m" if self._is_former(request) else "l")

    def _is_former(self, request: Request) -> bool:
        return self._spines is not None and self._spines.former(request.input_hash) is self._spine
