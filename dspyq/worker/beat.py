"""Celery's beat, as ``celery -A dspyq beat`` runs it."""

from __future__ import annotations

from typing import Any

from celery.beat import PersistentScheduler

from dspyq.errors import ConfigurationError
from dspyq.worker import lifecycle


class Scheduler(PersistentScheduler):  # type: ignore[misc]  # celery ships no types
    """Celery's own, which says in a line, not in a traceback, that it cannot write its file."""

    def setup_schedule(self) -> None:
        """Read the file and add what is configured."""
        try:
            super().setup_schedule()
        except OSError as error:
            lifecycle.refuse(
                ConfigurationError(
                    f"beat cannot write {self.schedule_filename}: {error.strerror}; name another file with --schedule, "
                    "or do without one with -S celery.beat.Scheduler: scheduled batches need none"
                )
            )

    def _destroy_open_corrupted_schedule(self, exc: Exception) -> Any:
        if isinstance(exc, OSError):  # nothing is wrong with the file
            raise exc
        return super()._destroy_open_corrupted_schedule(exc)
