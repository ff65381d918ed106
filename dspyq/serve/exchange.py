"""One request and its response, as the modules of the door see them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from starlette.types import Message, Receive, Scope, Send

from dspyq.config.secrets import scrub_shapes
from dspyq.core.ids import new_id
from dspyq.serve.problems import MALFORMED, MEDIA_TYPE, Declined, Problem

if TYPE_CHECKING:
    from dspyq.serve.callers import Caller
    from dspyq.serve.door import Door

JSON = b"application/json"
Headers = list[tuple[bytes, bytes]]
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_VARY, _NO_STORE = (b"vary", b"Authorization"), (b"cache-control", b"no-store")
_SCOPE_KEY = "dspyq.exchange"


class Exchange:
    """A request and its response.

    Attributes:
        door: The server's parts.
        scope: The ASGI scope.
        receive: The ASGI function that the body comes from.
        outlet: The ASGI function that endpoints send their response to; ``send`` comes last of what follows it.
        headers: The request's headers, their names in lower case.
        request_id: The caller's id of the request, or one of ours.
        caller: The caller, once it is recognized.
        limit_headers: Headers that state the rate of its key.
        route: The template of the matched path; empty for none.
        prediction: The public id of the prediction that it is about; empty for none.
        problem_form: Returns the body of a problem where that is not RFC 9457's; None where it is.
        cache_level: The source of a cached answer; empty for none.
        status: The status of the response; 0 before it has begun.
        sent_bytes: Bytes of the response's body.
        started_at: The monotonic second at which the request came.
    """

    __slots__ = (
        "_send", "cache_level", "caller", "door", "headers", "limit_headers", "outlet", "prediction", "problem_form",
        "receive", "request_id", "route", "scope", "sent_bytes", "started_at", "status",
    )  # fmt: skip

    def __init__(self, door: Door, scope: Scope, receive: Receive, send: Send) -> None:
        self.door = door
        self.scope = scope
        self.receive = receive
        self.outlet: Send = self.send
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.request_id = _request_id(self.headers.get(b"x-request-id"))
        self.caller: Caller | None = None
        self.limit_headers: tuple[tuple[bytes, bytes], ...] = ()
        self.route = ""
        self.prediction = ""
        self.problem_form: Callable[[Problem], dict[str, Any]] | None = None
        self.cache_level = ""
        self.status = 0
        self.sent_bytes = 0
        self.started_at = time.monotonic()
        self._send = send
        scope[_SCOPE_KEY] = self

    async def send(self, message: Message) -> None:
        """Pass a message of the response on, with the headers that all responses have."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._common_headers(message.get("headers", ()))]
        else:
            self.sent_bytes += len(message.get("body", b""))
        await self._send(message)

    async def reply(
        self,
        status: int,
        body: bytes = b"",
        headers: Headers | None = None,
        *,
        content_type: bytes = JSON,
    ) -> None:
        """Send a whole response."""
        own = [(b"content-length", b"%d" % len(body))]
        if body:
            own.append((b"content-type", content_type))
        await self.outlet({"type": "http.response.start", "status": status, "headers": own + (headers or [])})
        await self.outlet({"type": "http.response.body", "body": body})

    async def reply_json(self, status: int, value: Any, headers: Headers | None = None) -> None:
        """Send a value as JSON."""
        await self.reply(status, orjson.dumps(value), headers)

    async def reply_problem(self, problem: Problem) -> None:
        """Send a problem."""
        if self.problem_form is not None:
            await self.reply_json(problem.status, self.problem_form(problem), problem.stated_headers())
            return
        body = orjson.dumps(problem.stated(self.request_id))
        await self.reply(problem.status, body, problem.stated_headers(), content_type=MEDIA_TYPE)

    def check_head(self) -> None:
        """Check that the request has one host, as proxies and caches must agree on it.

        Raises:
            Declined: With 400.
        """
        stated = self.scope["headers"]
        if len(self.headers) < len(stated) and sum(name == b"host" for name, _ in stated) > 1:
            raise Declined(MALFORMED, "the request has several Host headers", headers=((b"connection", b"close"),))

    def path(self, path: str) -> str:
        """Return a path of the API as this request's client reaches it, behind its proxy."""
        return f"{self.scope.get('root_path', '')}{path}"

    def _common_headers(self, headers: Any) -> list[tuple[bytes, bytes]]:
        common = [(b"x-request-id", self.request_id.encode()), _VARY, *self.limit_headers]
        for name, _ in headers:
            if name == b"cache-control":
                break
        else:
            common.append(_NO_STORE)
        if self.door.is_draining:
            common.append((b"connection", b"close"))  # the next request may go to a server that stays
        return common


def exchange_of(scope: Scope) -> Exchange:
    """Return the exchange of a request, in whichever endpoint; a Starlette request has its scope."""
    exchange: Exchange = scope[_SCOPE_KEY]
    return exchange


def _request_id(stated: bytes | None) -> str:
    """Return the caller's id of its request, or a new one where that is missing, or may not be written everywhere."""
    if stated and _REQUEST_ID.fullmatch(stated):
        text = stated.decode()
        if scrub_shapes(text) == text:  # a key that was put there by mistake would be in every log
            return text
    return new_id()
