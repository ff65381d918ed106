"""The ASGI application: the routes of all modules, within what every request passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from dspyq.serve import own_key, programs, usage
from dspyq.serve.asking import batches, predictions
from dspyq.serve.chat import completions
from dspyq.serve.door import Door
from dspyq.serve.edge import Edge, Problems
from dspyq.serve.exchange import Exchange, exchange_of
from dspyq.serve.openapi import docs_page, document
from dspyq.serve.predictions import feedback, resources
from dspyq.serve.shortcut import Shortcut
from dspyq.serve.streams import events

#: Headers that web pages may send, and those that they may read.
_READ_HEADERS = (
    "Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer", "X-API-Key", "X-Request-Id",
)  # fmt: skip
_SHOWN_HEADERS = (
    "ETag", "Idempotent-Replayed", "Location", "Preference-Applied", "RateLimit", "RateLimit-Policy", "Retry-After",
    "X-Request-Id",
)  # fmt: skip


async def healthz(request: Request) -> Response:
    """``GET /healthz``: whether the server takes requests, and nothing else."""
    is_well = not exchange_of(request.scope).door.is_draining
    return PlainTextResponse("ok\n" if is_well else "ending\n", 200 if is_well else 503)


def build_app(door: Door, notes: Sequence[Callable[[Exchange], None]] = ()) -> ASGIApp:
    """Return the application of a server.

    Args:
        door: The server's parts.
        notes: Functions that are called with each exchange at its end.
    """
    routes = [
        *predictions.ROUTES,
        *batches.ROUTES,
        *completions.ROUTES,
        *resources.ROUTES,
        *events.ROUTES,
        *feedback.ROUTES,
        *programs.ROUTES,
        *own_key.ROUTES,
        *usage.ROUTES,
        *document.ROUTES,
        Route("/healthz", healthz),
    ]
    if door.serve.docs:
        routes += docs_page.build_routes()
    router = Router(routes, redirect_slashes=False)
    app: ASGIApp = Problems(Shortcut(predictions.ASK, door.settings.programs, door.serve.root_path, router))
    if door.serve.cors_origins:
        from starlette.middleware.cors import CORSMiddleware  # noqa: PLC0415 - most servers have no web pages as clients

        app = CORSMiddleware(
            app,
            allow_origins=door.serve.cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=_READ_HEADERS,
            expose_headers=_SHOWN_HEADERS,
        )
    return Edge(app, door, notes)
