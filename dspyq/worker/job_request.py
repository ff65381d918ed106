"""Request of a job in a worker, for remote control and Flower."""

from __future__ import annotations

from typing import Any

from celery.worker import request

from dspyq.config.privacy import HIDDEN


class JobRequest(request.Request):  # type: ignore[misc]  # celery ships no types
    """Celery's request, without its arguments."""

    def __init__(self, message: Any, *args: Any, **options: Any) -> None:
        super().__init__(message, *args, **options)
        if not self._decoded:  # decoded by the loop, so the running thread need not decode it again
            self._body, self._content_type, self._content_encoding = message.payload, None, None

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - Celery's signature
        """Return the fields for ``celery inspect``."""
        return {**super().info(safe=safe), "args": HIDDEN, "kwargs": HIDDEN}

    def __repr__(self) -> str:
        """Return the text for Celery's log."""
        return f"<{type(self).__name__}: {self.humaninfo()}>"
