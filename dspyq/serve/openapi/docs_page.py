"""The docs page: a form for each program in the browser, from the server itself, without a key or a build.

The page is the same for everyone: it reads ``/openapi.json``, which shows what its user may see.
"""

from __future__ import annotations

from importlib.resources import files

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dspyq.serve.exchange import Exchange, exchange_of
from dspyq.serve.problems import NOT_FOUND, Declined

_TYPES = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
}
_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
#: What the page refers to its server's paths by; a proxy may serve them under a path of its own.
_ROOT = b"{root}"


class ShowPage:
    """``GET /docs`` and ``GET /docs/{program}``: the page, whose script shows the program of its path."""

    def __init__(self, page: bytes) -> None:
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        await _reply(exchange, self._page.replace(_ROOT, exchange.path("").encode()), "html")


class ShowPart:
    """``GET /docs/assets/{name}``: a script or the style of the page."""

    def __init__(self, parts: dict[str, bytes]) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        name = scope["path_params"]["name"]
        if name not in self._parts:
            raise Declined(NOT_FOUND)
        await _reply(exchange, self._parts[name], name.rpartition(".")[2])


async def _reply(exchange: Exchange, body: bytes, ending: str) -> None:
    await exchange.reply(200, body, list(_HEADERS), content_type=_TYPES[ending])


def build_routes() -> list[Route]:
    """Return the page's routes, with its files read."""
    parts = {path.name: path.read_bytes() for path in (files("dspyq.serve.openapi") / "page").iterdir()}
    page = ShowPage(parts.pop("page.html"))
    return [
        Route("/docs", page, methods=["GET"]),
        Route("/docs/{program}", page, methods=["GET"]),
        Route("/docs/assets/{name}", ShowPart(parts), methods=["GET"]),
    ]
