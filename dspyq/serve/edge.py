"""The edge of the server: what every request passes, whatever its path."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from dspyq.config.key_grants import Right
from dspyq.core.events import Event
from dspyq.errors import DspyqError
from dspyq.serve.callers import Caller
from dspyq.serve.exchange import Exchange, exchange_of
from dspyq.serve.problems import NO_SUCH_METHOD, NOT_FOUND, Declined, Problem, problem_of

if TYPE_CHECKING:
    from dspyq.serve.door import Door

logger = logging.getLogger("dspyq.serve")

_METHOD_NOT_ALLOWED = 405


class Edge:
    """Makes the exchange of each request, and notes what came of it.

    Args:
        app: The application within.
        door: The server's parts.
        notes: Functions that are called with each exchange at its end.
    """

    def __init__(self, app: ASGIApp, door: Door, notes: Sequence[Callable[[Exchange], None]]) -> None:
        self._app = app
        self._door = door
        self._notes = notes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        exchange = Exchange(self._door, scope, receive, send)
        try:
            await self._app(scope, receive, exchange.send)
        except ConnectionResetError:
            return  # the client left, and no one is there to be answered
        finally:
            exchange.route = getattr(scope.get("route"), "path", "")
            for note in self._notes:
                note(exchange)


class Problems:
    """Answers errors of the application within as problems.

    Args:
        app: The application within.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        exchange = exchange_of(scope)
        exchange.outlet = send
        scope["app"] = self  # Starlette then raises for a method that a path does not have
        try:
            exchange.check_head()
            await self._app(scope, receive, send)
        except HTTPException as error:
            headers = tuple((name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items())
            kind = NO_SUCH_METHOD if error.status_code == _METHOD_NOT_ALLOWED else NOT_FOUND
            await _reply(exchange, Problem(kind, headers=headers))
        except (Declined, DspyqError) as error:
            await _reply(exchange, problem_of(error, shows_errors=exchange.door.serve.show_errors))
        except ConnectionResetError:
            raise
        except Exception as error:
            logger.exception(Event("request_failed", error=type(error).__name__, request_id=exchange.request_id))
            await _reply(exchange, problem_of(error))


async def _reply(exchange: Exchange, problem: Problem) -> None:
    """Send a problem, unless a response has begun: then all that is left is to close the connection in its middle."""
    if exchange.status:
        raise ConnectionResetError("the response had begun")
    await exchange.reply_problem(problem)


async def recognized(exchange: Exchange, right: Right | None = None) -> Caller:
    """Return the caller of a request.

    Args:
        exchange: The request.
        right: What it must be allowed to do; None for nothing.

    Raises:
        Declined: With 401 if it is not recognized, with 403 if it does not have the right, with 429 if it has no turn.
        RedisUnavailable: If its key could not be verified.
    """
    caller = exchange.caller
    if caller is None:
        client = exchange.scope.get("client")
        found = await exchange.door.gate.recognize(exchange.headers, client[0] if client else "")
        caller, exchange.limit_headers = found
        exchange.caller = caller
    if right is not None:
        caller.check(right)
    return caller
