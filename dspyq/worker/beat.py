"""Celery's beat, as ``celery -A dspyq beat`` runs it."""

from __future__ import annotations

from typing import Any

from celery.beat import PersistentScheduler

from dspyq.errors import ConfigurationError
from dspyq.worker.refusal import refuse


class Scheduler(PersistentScheduler):  # type: ignore[misc]  # celery ships no types
    """Celery's persistent scheduler, with a one-line error instead of a traceback if it cannot write its file."""

    def setup_schedule(self) -> None:
        """Read the file and add the configured entries."""
        try:
            super().setup_schedule()
        except OSError as error:
            refuse(
                ConfigurationError(
                    f"beat cannot write {self.schedule_filename}: {error.strerror}; name another file with --schedule, "
                    "or do without one with -S celery.beat.Scheduler: scheduled batches need none"
                )
            )

    def _destroy_open_corrupted_schedule(self, exc: Exception) -> Any:
        if isinstance(exc, OSError):  # the file itself is fine
            raise exc
        return super()._destroy_open_corrupted_schedule(exc)
