"""A Procfile's processes: parsed by honcho, and shown as honcho does, each line after the process's name.

They are not run by honcho's manager: when killed it leaves its processes behind, it signals all of them at once and
does not report which one ended.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from honcho.colour import get_colours
from honcho.environ import parse_procfile
from honcho.printer import Message, Printer

from dspyq.core.visible import visible_but_for_colours
from dspyq.errors import ConfigurationError
from dspyq.stack.demo_door import DOOR_COMMAND
from dspyq.stack.embedded.supervised_process import SupervisedProcess
from dspyq.stack.processes import WORKER_COMMAND

PROCFILE = Path("Procfile")
#: A shell that runs a command as its child would end at once on SIGTERM, and the command be killed as what it left
#: behind. With a trap it waits for the command's end.
_WAITS_FOR_ITS_COMMAND = "trap 'exit 143' TERM\n"
#: Time to read the output of an ended process: its children may keep it open.
_REST_SECONDS = 1.0
#: Commands for a working directory without a Procfile.
DEFAULT_PROCESSES = {
    "worker": WORKER_COMMAND,
    "serve": DOOR_COMMAND,
    "flower": "celery -A dspyq flower --address=127.0.0.1 --read_only=true",
}


def read_procfile() -> dict[str, str]:
    """Return the commands of the working directory's Procfile, or the default ones, by process name.

    Raises:
        ConfigurationError: If the Procfile cannot be used.
    """
    if not PROCFILE.exists():
        return DEFAULT_PROCESSES
    try:
        processes: dict[str, str] = dict(parse_procfile(PROCFILE.read_text(encoding="utf-8")).processes)
    except (OSError, UnicodeDecodeError, AssertionError) as error:  # honcho asserts that names are unique
        raise ConfigurationError(f"{PROCFILE.resolve()} cannot be read: {error}") from error
    if not processes:
        raise ConfigurationError(f"{PROCFILE.resolve()} has no line of the form 'worker: {WORKER_COMMAND}'")
    return processes


def start_process(command: str, variables: Mapping[str, str], *, grace_seconds: float) -> SupervisedProcess:
    """Start a Procfile's command in a shell, with programs of this Python's environment found first.

    Args:
        command: The command.
        variables: Variables added to this process's environment.
        grace_seconds: Time to end before it is killed.
    """
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **variables}
    shell = ["/bin/sh", "-c", _WAITS_FOR_ITS_COMMAND + command]
    return SupervisedProcess(shell, environment=environment, output=subprocess.PIPE, grace_seconds=grace_seconds)


class Echo:
    """Prints the output of processes.

    Args:
        names: The processes that will be followed.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._colours = dict(zip(names, get_colours(), strict=False))
        self._printer = Printer(sys.stdout, width=max(map(len, self._colours)))
        self._lines: queue.Queue[Message] = queue.Queue()
        self._readers: list[threading.Thread] = []

    def follow(self, name: str, process: SupervisedProcess) -> None:
        """Take over a process's output until it ends."""
        output, process.stdout = process.stdout, None  # it would be closed with the process, its end unread
        reader = threading.Thread(target=self._read, args=(name, output), name=f"output of {name}", daemon=True)
        reader.start()
        self._readers.append(reader)

    def print_rest(self) -> None:
        """Print the rest of the output of processes that have ended."""
        deadline = time.monotonic() + _REST_SECONDS
        for reader in self._readers:
            reader.join(max(0.0, deadline - time.monotonic()))
        self.print_for(0)

    def print_for(self, seconds: float) -> None:
        """Print pending and new output for some seconds; with 0, only pending output."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._printer.write(self._lines.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                return

    def _read(self, name: str, output: IO[bytes]) -> None:
        with output:
            for line in output:
                now = datetime.now(tz=UTC).astimezone()
                text = visible_but_for_colours(line.decode(errors="replace").rstrip("\r\n"))
                self._lines.put(Message(type="line", data=text or " ", time=now, name=name, colour=self._colours[name]))
