"""The parts of a server that its endpoints share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dspyq.config.settings import get_settings
from dspyq.core.runtime import per_runtime
from dspyq.errors import RedisUnavailable
from dspyq.serve.asking.bulk_asker import AskersOfSpines, BulkAsker
from dspyq.serve.gate import Gate
from dspyq.serve.predictions.answer_forms import AnswerForms
from dspyq.serve.streams.withdrawals import Withdrawals
from dspyq.serve.waiting.room import WaitingRoom
from dspyq.store.fleet_secret import FleetSecret
from dspyq.store.spines import process_spines

if TYPE_CHECKING:
    from dspyq.config.schema import Settings
    from dspyq.config.sections import ServeSection
    from dspyq.serve.callers import Openness


class Door:
    """The parts of one server process. Its event loop alone calls its methods.

    Args:
        openness: How it recognizes callers.

    Attributes:
        settings: The settings.
        serve: Those of the door.
        gate: Recognizes callers.
        asker: Sends questions that this process's memory does not answer.
        room: The requests that wait.
        forms: The answers of this process's memory as it sends them.
        streams: Number of event streams that are open.
        withdrawals: The withdrawals of their calls.
        is_draining: Whether it is to end, and accepts requests for a last while.
        is_ending: Whether it ends: no request waits any more.
    """

    def __init__(self, openness: Openness) -> None:
        self.settings: Settings = get_settings()
        self.serve: ServeSection = self.settings.serve
        self.gate = Gate(openness)
        spines = process_spines()
        self.asker = BulkAsker() if spines is None else AskersOfSpines(spines)
        self.room = WaitingRoom(self.serve.most_waiting, self.serve.max_queued)
        self.forms = AnswerForms()
        self.streams = 0
        self.withdrawals = Withdrawals()
        self.is_draining = False
        self.is_ending = False
        self._limits: set[asyncio.Timeout] = set()
        self._acts: set[Callable[[], object]] = set()

    @contextmanager
    def ends_early(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Have a wait time out at once when the server ends."""
        if self.is_ending:
            limit.reschedule(asyncio.get_running_loop().time())
        self._limits.add(limit)
        try:
            yield
        finally:
            self._limits.discard(limit)

    def at_end(self, act: Callable[[], object]) -> None:
        """Have something done when the server ends, unless ``not_at_end`` takes that back."""
        self._acts.add(act)

    def not_at_end(self, act: Callable[[], object]) -> None:
        """Take it back."""
        self._acts.discard(act)

    def end(self) -> None:
        """End all waits."""
        self.is_draining = self.is_ending = True
        now = asyncio.get_running_loop().time()
        for limit in list(self._limits):
            if not limit.expired():
                limit.reschedule(now)
        for act in list(self._acts):
            act()

    def signing_key(self) -> bytes:
        """Return the key that public ids are signed with.

        Raises:
            RedisUnavailable: If it could not be read yet.
        """
        known = process_serve_secret().signing_key
        if known is None:
            raise RedisUnavailable("the fleet's secret could not be read yet; check DSPYQ_REDIS_URL")
        return known


@per_runtime
def process_serve_secret() -> FleetSecret:
    """Return this process's view of the secret that public ids and tokens of streams are signed with."""
    return FleetSecret("serve-secret")
