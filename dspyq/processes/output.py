"""Output of workers and of their parent, on the parent's standard output and error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

_STDERR = 2


class WorkerOutput:
    """Passes lines on as they come. Until the first worker is ready, it shows one worker's alone and keeps the others'.

    All of them print the same while they start, and the same fault where the configuration is refused.

    Args:
        is_terminal: Whether people read it: then each line begins with its worker's name.
        width: The length of the longest name.
    """

    def __init__(self, *, is_terminal: bool, width: int) -> None:
        self._is_terminal = is_terminal
        self._width = width
        self._shown_worker: str | None = None
        self._is_starting = True
        self._has_failed = False
        self._printed: set[bytes] = set()
        self._kept: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self._rest: dict[tuple[str, int], bytes] = {}

    def write(self, worker: str, descriptor: int, data: bytes) -> None:
        """Take what a worker has written; the rest of an unfinished line waits for its end.

        Args:
            worker: Its name.
            descriptor: 1 or 2, standard output or error.
            data: What it wrote; nothing where it has closed it.
        """
        key = worker, descriptor
        text = self._rest.pop(key, b"") + data
        if not data and text:
            text += b"\n"  # it ended before the line did
        lines = text.splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            self._rest[key] = lines.pop()
        if lines:
            self._take(worker, descriptor, lines)

    def release(self) -> None:
        """Print the kept lines, and keep no more: a worker is ready, so the others will print lines of their own."""
        self._is_starting = False
        for worker in list(self._kept):
            for descriptor, line in self._kept.pop(worker):
                self._print(worker, descriptor, [line])

    def show_failure(self, worker: str) -> None:
        """Print a worker that could not start; from then on, nothing that was printed before."""
        self._has_failed = True
        for descriptor, line in self._kept.pop(worker, ()):
            self._take(worker, descriptor, [line])
        self._kept.clear()

    def report(self, event: str, text: str, **fields: Any) -> None:
        """Print an entry of the parent's own.

        Args:
            event: Its name.
            text: The same for people.
            fields: Its fields.
        """
        if self._is_terminal:
            self._print("dspyq", _STDERR, [f"{text}\n".encode()])
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry = {"timestamp": now, "level": "info", "event": event, **fields}
        self._print("dspyq", _STDERR, [f"{json.dumps(entry)}\n".encode()])

    def _take(self, worker: str, descriptor: int, lines: list[bytes]) -> None:
        self._shown_worker = self._shown_worker or worker
        if self._has_failed:
            self._print(worker, descriptor, [line for line in lines if line not in self._printed])
        elif self._is_starting and worker != self._shown_worker:
            self._kept[worker] += [(descriptor, line) for line in lines]
        else:
            self._print(worker, descriptor, lines)

    def _print(self, worker: str, descriptor: int, lines: list[bytes]) -> None:
        if self._is_starting:
            self._printed.update(lines)
        prefix = f"{worker:<{self._width}} | ".encode() if self._is_terminal else b""
        text = b"".join(prefix + line + (b"" if line.endswith(b"\n") else b"\n") for line in lines)
        with contextlib.suppress(OSError):  # the reader is gone; the workers continue
            while text:
                text = text[os.write(descriptor, text) :]


def is_terminal() -> bool:
    """Return whether people read the standard error."""
    return sys.stderr is not None and sys.stderr.isatty()
