"""Ends a worker at a named step of a lane's shipment, as a host that dies exactly there.

A worker alone loads it, through ``workers.imports``: it changes classes for its whole process.
``tests/support/lane_points.py`` has the points.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from typing import Any

from dspyq.delivery.leases import Leases
from dspyq.lane.journal import LaneJournal
from dspyq.lane.providers.openai import OpenAIBatches
from dspyq.store.clients import jobs_client
from tests.support.lane_points import KEY


def reach(point: str) -> None:
    """Die here, if this is the point."""
    client = jobs_client()
    if client.get(KEY) == point.encode() and client.delete(KEY):
        os.kill(os.getpid(), signal.SIGKILL)


def _patch(owner: type, name: str, *, before: str = "", after: Callable[..., str] = lambda *_: "") -> None:
    call = getattr(owner, name)

    @functools.wraps(call)
    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        if before:
            reach(before)
        result = call(self, *args, **kwargs)
        if point := after(*args):
            reach(point)
        return result

    setattr(owner, name, patched)


_SAVED = {"filled": "after-fill", "submitted": "after-submit"}
_patch(Leases, "sleep", before="before-sleep")
_patch(LaneJournal, "save", after=lambda shipment: _SAVED.get(shipment.state, ""))
_patch(LaneJournal, "sync", after=lambda: "before-create")
_patch(LaneJournal, "run", before="mid-land", after=lambda _: "after-land")
_patch(LaneJournal, "close", before="before-close")
_patch(OpenAIBatches, "upload", after=lambda *_: "after-upload")
_patch(OpenAIBatches, "create", after=lambda *_: "after-create")
