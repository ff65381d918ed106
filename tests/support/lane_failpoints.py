"""Ends or freezes a worker at a named step of a lane's shipment, as a host that dies or stands still exactly there.

A worker alone loads it, through ``workers.imports``: it changes classes for its whole process.
``tests/support/lane_points.py`` has the points.
"""

from __future__ import annotations

import functools
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import dspyq.lane.service
from dspyq.delivery.leases import Leases
from dspyq.lane.creation import Creation
from dspyq.lane.journal import LaneJournal
from dspyq.lane.providers.openai import OpenAIBatches
from dspyq.store.clients import money_client
from dspyq.store.spines import current_spine
from tests.support.lane_points import DEATHS_KEY, FROZEN, KEY, RUNNER_LEASE_SECONDS


def reach(point: str) -> None:
    """Die or freeze here, if this is the point."""
    client = money_client()  # which all lanes of a worker share, where several servers hold questions
    named = (client.get(KEY) or b"").decode()
    if named.removeprefix(FROZEN) == point and client.delete(KEY):
        spine = current_spine()
        client.rpush(DEATHS_KEY, f"{time.time()} {0 if spine is None else spine.number}")
        # To this thread: one to the process may be taken by another thread, while this one goes on for a moment.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP if named.startswith(FROZEN) else signal.SIGKILL)


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


dspyq.lane.service.RUNNER_LEASE_SECONDS = RUNNER_LEASE_SECONDS
_SAVED = {"filled": "after-fill", "submitted": "after-submit"}
_patch(Leases, "sleep", before="before-sleep")
_patch(LaneJournal, "save", after=lambda shipment: _SAVED.get(shipment.state, ""))
_patch(Creation, "_submit", before="before-create")
_patch(LaneJournal, "run", before="mid-land", after=lambda _: "after-land")
_patch(LaneJournal, "close", before="before-close")
_patch(OpenAIBatches, "upload", after=lambda *_: "after-upload")
_patch(OpenAIBatches, "create", after=lambda *_: "after-create")
