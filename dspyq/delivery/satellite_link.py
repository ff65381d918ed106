"""The link of a worker's transport to one spine, over the life of the connection and its ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from redis.exceptions import RedisError

from dspyq.core.events import Event
from dspyq.core.tolerated import tolerate
from dspyq.delivery.beat import process_beat
from dspyq.store.spines import Spine

logger = logging.getLogger("dspyq.spines")


class LinkedChannel(Protocol):
    """Channel to one spine.

    Attributes:
        lost: The error that ended it; None while it lives.
    """

    lost: BaseException | None

    def begin_turns(self) -> None:
        """Follow a change of the consumed queues."""

    def close(self) -> None:
        """Close it."""


Satellite = TypeVar("Satellite", bound=LinkedChannel)


class SatelliteLink(Generic[Satellite]):
    """Link to a spine. The loop calls ``attend``, which never waits: a thread connects.

    After a loss it connects again once the spine's beat, which has connections of its own, was answered.

    Args:
        spine: The spine.
        connect: Makes a satellite, connected; None while nothing is consumed yet.
        join: Has the loop poll a satellite.

    Attributes:
        satellite: The channel, while there is one.
    """

    def __init__(
        self, spine: Spine, connect: Callable[[Spine], Satellite | None], join: Callable[[Satellite], object]
    ) -> None:
        self.satellite: Satellite | None = None
        self._spine = spine
        self._connect = connect
        self._join = join
        self._connected: Satellite | None = None
        self._thread: threading.Thread | None = None
        self._lost_at: float | None = None
        self._is_outage = False
        self._is_closed = False

    def attend(self) -> None:
        """Take the next step: close the satellite if it is lost, begin to connect, or have a new one polled."""
        if self.satellite is not None:
            if self.satellite.lost is not None:
                self._lose(self.satellite, self.satellite.lost)
            return
        if self._thread is not None and self._thread.is_alive():
            return
        connected, self._connected = self._connected, None
        if connected is not None:
            self._begin(connected)
        elif self._lost_at is None or self._spine_answered_since(self._lost_at):
            self._thread = threading.Thread(
                target=self._spine.runtime.bind(self._try_to_connect), name="dspyq-satellite", daemon=True
            )
            self._thread.start()

    def begin_turns(self) -> None:
        """Follow a change of the consumed queues."""
        if self.satellite is not None:
            self.satellite.begin_turns()

    def close(self) -> None:
        """Connect no more; the transport closes the satellite with its other channels."""
        self._is_closed = True

    def _begin(self, satellite: Satellite) -> None:
        self.satellite = satellite
        self._join(satellite)
        if self._is_outage:
            self._is_outage = False
            seconds = round(time.monotonic() - (self._lost_at or 0.0), 1)
            logger.warning(Event("spine_back", spine=self._spine.name, seconds=seconds))

    def _lose(self, satellite: Satellite, error: BaseException) -> None:
        self.satellite = None
        self._note_loss(error)
        satellite.close()

    def _note_loss(self, error: BaseException) -> None:
        if not self._is_outage:
            self._is_outage = True
            self._lost_at = time.monotonic()
            tolerate("spine_away", error)
            logger.error(Event("spine_away", spine=self._spine.name, error=type(error).__name__))
        else:
            self._lost_at = time.monotonic()

    def _spine_answered_since(self, second: float) -> bool:
        beat = self._spine.runtime.peek(process_beat)
        return beat is not None and beat.answered_at > second

    def _try_to_connect(self) -> None:
        try:
            satellite = self._connect(self._spine)
        except (RedisError, OSError) as error:
            self._note_loss(error)
            return
        if satellite is not None and self._is_closed:
            satellite.close()
        else:
            self._connected = satellite
