"""A server process: uvicorn with our protocol, our signals and our end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import redis
import uvicorn

from dspyq.api_keys.usage import process_key_usage
from dspyq.cache.memory import CoherentCache, process_cache
from dspyq.client.off_loop import off_loop
from dspyq.core import systemd
from dspyq.core.events import Event
from dspyq.core.process_tuning import settle
from dspyq.core.tolerated import tolerate
from dspyq.errors import ConfigurationError, DspyqError
from dspyq.experiments.token import process_secret
from dspyq.serve.app import build_app
from dspyq.serve.door import Door, process_serve_secret
from dspyq.serve.process.access_log import AccessLog
from dspyq.serve.process.log import is_for_people
from dspyq.serve.process.metrics import RequestCounts
from dspyq.serve.process.protocol import DoorProtocol
from dspyq.serve.waiting.room import DepthsOfSpines, read_depths
from dspyq.store.clients import jobs_client, money_client
from dspyq.store.spines import on_each_spine, process_spines

logger = logging.getLogger("dspyq.serve")

_BACKLOG = 2048
_TICK_SECONDS = 1.0
#: What is answered when the waits end has so long to be read.
_LAST_SECONDS = 1.5


class DoorServer(uvicorn.Server):
    """A server that drains before it ends.

    Attributes:
        door: The parts that its endpoints share.
        url: Its root URL, for clients on this machine.
        counts: Counts of its requests.
        answered_at: The monotonic second at which Redis last answered.
        ticked_at: The monotonic second at which its event loop last had a turn.
    """

    def __init__(self, door: Door, url: str) -> None:
        serve = door.serve
        self.counts = RequestCounts()
        self._access_log = AccessLog(for_people=is_for_people(door.settings))
        DoorProtocol.header_seconds, DoorProtocol.body_seconds = serve.header_seconds, serve.body_seconds
        config = uvicorn.Config(
            build_app(door, (self.counts.note, self._access_log.note)),
            http=DoorProtocol,
            loop="uvloop",
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            log_level=logging.WARNING,
            root_path=serve.root_path,
            proxy_headers=bool(serve.trusted_proxies),
            forwarded_allow_ips=list(serve.trusted_proxies),
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=max(1, round(serve.keep_alive_seconds)),
            timeout_graceful_shutdown=2,
        )
        super().__init__(config)
        self.door = door
        self.url = url
        self.answered_at = float("-inf")
        self.ticked_at = time.monotonic()
        self._draining: asyncio.Task[None] | None = None
        spines = process_spines()
        self._depths = None if spines is None else DepthsOfSpines(spines)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain at the first signal, end at the second."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._receive_signal)
        ticking = asyncio.ensure_future(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, answer what is left, write the rest of the log, and send the counts of keys."""
        await super().shutdown(sockets)
        await self._look_at_redis()
        await self._access_log.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and report that the server is ready."""
        await self._look_at_redis()
        await self._warm_cache()
        await super().startup(sockets)
        settle()
        logger.warning(Event("server_ready", url=self.url))
        systemd.notify("READY=1")

    @property
    def is_ready(self) -> bool:
        """True if it takes requests, and Redis answers."""
        return not self.door.is_draining and time.monotonic() - self.answered_at < _READY_SECONDS

    @property
    def is_alive(self) -> bool:
        """True if its event loop has turns."""
        return time.monotonic() - self.ticked_at < _ALIVE_SECONDS

    def _receive_signal(self) -> None:
        if self._draining is None:
            systemd.notify("STOPPING=1")
            self.door.is_draining = True
            logger.warning(Event("server_ending", drain_seconds=self.door.serve.drain_seconds))
            self._draining = asyncio.ensure_future(self._drain())
        else:
            self._draining.cancel()
            self.door.end()
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        """Accept requests until load balancers have seen that this server ends; then answer all that wait."""
        await asyncio.sleep(self.door.serve.drain_seconds)
        self.door.end()
        self.should_exit = True

    async def _tick(self) -> None:
        """Keep what requests need from Redis at hand, so that none of them has to wait for it."""
        while True:
            self.ticked_at = time.monotonic()
            await self._look_at_redis()
            await asyncio.sleep(_TICK_SECONDS)

    @staticmethod
    async def _warm_cache() -> None:
        """Have the memory cache hear of invalidations before the first request, so that its first answers are kept."""
        caches = on_each_spine(process_cache)
        with suppress(TimeoutError):
            async with asyncio.timeout(_WARM_SECONDS):
                while any(isinstance(cache, CoherentCache) and not cache.is_trusted for cache in caches):  # noqa: ASYNC110 - their threads are no tasks
                    await asyncio.sleep(_WARM_LOOK_SECONDS)

    async def _look_at_redis(self) -> None:
        asked = self.door.room.take_asked()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                depths = await off_loop(_look, asked if self._depths is None else None)
                if depths is not None:
                    self.answered_at = time.monotonic()
                    self.door.room.learn(depths)
        if self._depths is not None:
            self.door.room.learn(await self._depths.read(asked, _TICK_SECONDS))


#: Redis may be silent for so long before the server counts as not ready.
_READY_SECONDS = 10.0
_ALIVE_SECONDS = 15.0
_LOOK_SECONDS = 5.0
_WARM_SECONDS, _WARM_LOOK_SECONDS = 2.0, 0.01


def _look(asked: frozenset[str] | None) -> dict[str, int] | None:
    """Send the counts of keys, read the secrets that are due, and the depths of queues; None without Redis.

    Args:
        asked: The queues; None where there are several spines, whose depths are read apart.
    """
    try:
        process_key_usage().send()
        process_serve_secret().key()
        process_secret().key()
        if not asked:
            (money_client() if asked is None else jobs_client()).ping()
            return {}
        return read_depths(asked)
    except (redis.RedisError, DspyqError) as error:
        tolerate("door_thread", error)
        return None


def listen(host: str, port: int, *, is_shared: bool) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: The address.
        port: The port; 0 picks a free one.
        is_shared: Whether other processes of this server listen at it too.

    Raises:
        ConfigurationError: If the address and port are not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"serve.port: cannot listen at {host}:{port}: {error.strerror or error}; choose another with --port, and 0 "
            "picks a free one"
        ) from error
    return listener
