"""Sources of keys, each read again while the process runs: a file, an environment variable, a command."""

from __future__ import annotations

import logging
import os
import shlex
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Protocol

from dspyq.core.events import Event
from dspyq.errors import ConfigurationError
from dspyq.sealing.keyring import Keyring, read_keyring

logger = logging.getLogger("dspyq.sealing")

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_LARGEST_FILE_BYTES = 1024 * 1024
_COMMAND_SECONDS = 30.0
#: A file is looked at so often, and read for an unknown id so often; a command, which may ask a KMS, less often.
_FILE_SECONDS, _COMMAND_AGAIN_SECONDS = 1.0, 60.0


class KeySource(Protocol):
    """A place with lines of keys.

    Attributes:
        pause_seconds: The shortest time between two readings.
    """

    pause_seconds: float

    def read(self) -> Keyring:
        """Return the keys.

        Raises:
            ConfigurationError: If they cannot be read.
        """

    def mark(self) -> object:
        """Return what differs once the keys have changed; always the same where that cannot be seen."""


class KeyFile:
    """A file that its user alone can read.

    Args:
        path: The file.
    """

    pause_seconds = _FILE_SECONDS

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = f"encryption.keys_file: {path}"

    def read(self) -> Keyring:
        """Return its keys."""
        try:
            with self._path.open("rb") as file:
                state = os.fstat(file.fileno())
                if state.st_mode & _OTHERS:
                    raise ConfigurationError(
                        f"{self._name} can be read by others than its user (mode {stat.S_IMODE(state.st_mode):04o}): "
                        "chmod 600 it"
                    )
                if state.st_uid not in {os.geteuid(), 0}:
                    raise ConfigurationError(f"{self._name} is another user's")
                text = file.read(_LARGEST_FILE_BYTES)
        except OSError as error:
            raise ConfigurationError(f"{self._name}: {error.strerror}") from None
        return read_keyring(_lines(text, self._name), self._name)

    def mark(self) -> object:
        """Return its identity, time and size."""
        try:
            state = self._path.stat()
        except OSError:
            return None
        return state.st_ino, state.st_mtime_ns, state.st_size, state.st_mode


class KeyVariable:
    """An environment variable with such lines.

    Args:
        name: Its name.
    """

    pause_seconds = _FILE_SECONDS

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self) -> Keyring:
        """Return its keys."""
        text = os.environ.get(self._name)
        if not text:
            raise ConfigurationError(f"encryption.keys_env: the environment variable {self._name} is not set")
        return read_keyring(text.splitlines(), f"encryption.keys_env: {self._name}")

    def mark(self) -> object:
        """Return its text."""
        return os.environ.get(self._name)


class KeyCommand:
    """A command that prints such lines: any KMS by its own tool. It runs at the start, and for an unknown id.

    Args:
        command: The command, split as a shell does; no shell runs it.
    """

    pause_seconds = _COMMAND_AGAIN_SECONDS

    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)

    def read(self) -> Keyring:
        """Return the keys that it prints."""
        name = f"encryption.key_command: {self._command[0]}"
        try:
            done = subprocess.run(self._command, capture_output=True, timeout=_COMMAND_SECONDS, check=False)  # noqa: S603 - the operator's own command, without a shell
        except subprocess.TimeoutExpired:
            raise ConfigurationError(f"{name} did not end within {_COMMAND_SECONDS:g} s") from None
        except OSError as error:
            raise ConfigurationError(f"{name}: {error.strerror}") from None
        if done.returncode:
            raise ConfigurationError(f"{name} ended with code {done.returncode}; run it by hand to see why")
        return read_keyring(_lines(done.stdout, name), f"the output of {name}")

    def mark(self) -> object:
        """Return nothing: a change cannot be seen without running it."""
        return None


def _lines(text: bytes, name: str) -> list[str]:
    try:
        return text.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name} holds characters that no key has") from None


class LiveKeys:
    """Keys as their source states them now, without a restart.

    A source that can no longer be read leaves the keys of before, and is logged.

    Args:
        source: The source.

    Raises:
        ConfigurationError: If it cannot be read at first.
    """

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._mark = source.mark()
        self._ring = source.read()
        self._lock = threading.Lock()
        self._looked_at = self._read_at = time.monotonic()

    def renew(self) -> None:
        """Make it fit for a forked child: another thread of the parent may hold its lock."""
        self._lock = threading.Lock()

    @property
    def ring(self) -> Keyring:
        """The keys; the source is looked at once a second."""
        now = time.monotonic()
        if now - self._looked_at >= _FILE_SECONDS:
            self._looked_at = now
            mark = self._source.mark()
            if mark != self._mark:
                self._mark = mark
                self._read()
        return self._ring

    def find(self, key_id: bytes) -> bytes | None:
        """Return the key of an id; for an unknown one the source is read again, if it was not just read."""
        if (key := self.ring.keys.get(key_id)) is not None:  # as nearly always
            return key
        with self._lock:
            if time.monotonic() - self._read_at >= self._source.pause_seconds:
                self._read()
        return self._ring.keys.get(key_id)

    def _read(self) -> None:
        self._read_at = time.monotonic()
        try:
            ring = self._source.read()
        except ConfigurationError as error:
            logger.error(Event("keys_not_read", error=str(error)))  # noqa: TRY400 - its text is complete
            return
        if ring != self._ring:
            logger.warning(Event("keys_read", seals=ring.sealing_id, opens=ring.ids, index=list(ring.index)))
            self._ring = ring
