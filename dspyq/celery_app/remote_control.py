"""Remote control with durable revocation, which outlives the workers that received it."""

from __future__ import annotations

from typing import Any

from celery.app import control
from celery.utils.functional import maybe_list

from dspyq.celery_app.revocation import revoke
from dspyq.config.settings import get_settings
from dspyq.core.runtime import Runtime, in_own_runtime
from dspyq.errors import InvalidOption


class Control(control.Control):  # type: ignore[misc]  # celery ships no types
    """Celery's remote control, with durable revocation and without termination."""

    @property
    def runtime(self) -> Runtime:
        """The runtime of its application."""
        runtime: Runtime = self.app.runtime
        return runtime

    @in_own_runtime
    def broadcast(self, command: Any, *arguments: Any, reply: bool = False, **options: Any) -> Any:
        """Send a command to the workers; none where they obey none, as Flower would with each page and each listener.

        A user of Redis without a right to the channel would lose its connection by it.
        """
        if not get_settings().workers.remote_control:
            return [] if reply else None
        return super().broadcast(command, *arguments, reply=reply, **options)

    @in_own_runtime
    def revoke(self, task_id: Any, destination: Any = None, terminate: bool = False, **options: Any) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """End a job, or a list of them, for everyone, also while no worker is up.

        Raises:
            InvalidOption: With ``terminate``: a thread cannot be stopped from outside.
        """
        if terminate:
            raise InvalidOption(
                "a prediction runs in a thread, which nothing can terminate: revoke it without terminate=True; what it "
                "computes will not be stored"
            )
        revoke(maybe_list(task_id))
        if not get_settings().workers.remote_control:  # what workers do of it besides is no more than the above
            return None
        return super().revoke(task_id, destination=destination, **options)
