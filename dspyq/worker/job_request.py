"""A job in a worker, as remote control and Flower see it."""

from __future__ import annotations

from typing import Any

from celery.worker import request

from dspyq.config.privacy import HIDDEN


class Request(request.Request):  # type: ignore[misc]  # celery ships no types
    """Celery's own, without its arguments."""

    def __init__(self, message: Any, *args: Any, **options: Any) -> None:
        super().__init__(message, *args, **options)
        if not self._decoded:  # what the loop has read need not be read again by the thread that runs it
            self._body, self._content_type, self._content_encoding = message.payload, None, None

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - Celery's signature
        """Return what ``celery inspect`` shows."""
        return {**super().info(safe=safe), "args": HIDDEN, "kwargs": HIDDEN}

    def __repr__(self) -> str:
        """Return what Celery's log shows."""
        return f"<{type(self).__name__}: {self.humaninfo()}>"
