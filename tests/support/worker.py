"""Real worker processes: ``celery -A dspyq worker``, as an operator starts them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import celery

from tests.support.processes import LocalProcess

#: Importing DSPy takes seconds on a busy machine.
START_TIMEOUT_SECONDS = 60.0
_HOST = "localhost"
_numbers = itertools.count(1)


class Worker(LocalProcess):
    """A worker process, with what pytest-celery asks of a worker's container.

    Attributes:
        node_name: Its name for Celery's remote control; no other worker of this run has it.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        *,
        arguments: Sequence[str] = (),
        application: str = "dspyq",
        mingles: bool = False,
        is_forked: bool = True,
        repository: Path | None = None,
    ) -> None:
        """Start it; ``ready()`` waits until it takes jobs.

        Args:
            env: Its whole environment (see ``configuration.environment``).
            arguments: Further arguments of ``celery worker``, as ``-c 2``.
            application: The module of its Celery app.
            mingles: Whether it asks other workers for their revocations at its start, as it does for an operator.
                That takes a second of waiting, and nothing of dspyq rests on it.
            is_forked: Whether a nursery may fork it; not where its command line or its start matters.
            repository: Where another version of dspyq is checked out, whose code it is to run.
        """
        self._name = f"worker{next(_numbers)}"
        self.node_name = f"{self._name}@{_HOST}"
        celery_script = Path(sys.executable).with_name("celery")
        command = [str(celery_script), "-A", application, "worker", "-l", "INFO", "-n", self.node_name]
        command += [*arguments] if mingles else ["--without-mingle", *arguments]
        place = {"directory": repository} if repository else {"module": "celery" if is_forked else None}
        super().__init__(self._name, command, ready_line=" ready.", env=env, **place)
        self.id = _HOST  # pytest-celery builds the node's name of worker name and container id

    def ready(self, timeout: float = START_TIMEOUT_SECONDS) -> bool:
        """Wait until it says that it is ready."""
        return super().ready(timeout)

    def worker_name(self) -> str:
        """Return the part of the node's name before the @."""
        return self._name

    def worker_queue(self) -> str:
        """Return its queue; a worker of dspyq serves all that are configured."""
        return "dspyq"

    def log_level(self) -> str:
        """Return its log level."""
        return "INFO"

    def version(self) -> str:
        """Return Celery's version."""
        return str(celery.__version__)
