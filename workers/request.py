"""A job in a worker, as remote control and Flower see it."""

from __future__ import annotations

from typing import Any

from celery.worker import request

from config.privacy import HIDDEN


class Request(request.Request):  # type: ignore[misc]  # celery ships no types
    """Celery's own, without its arguments."""

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - Celery's signature
        """Return what ``celery inspect`` shows."""
        return {**super().info(safe=safe), "args": HIDDEN, "kwargs": HIDDEN}

    def __repr__(self) -> str:
        """Return what Celery's log shows."""
        return f"<{type(self).__name__}: {self.humaninfo()}>"
