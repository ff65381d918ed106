"""uvicorn's protocol with deadlines and bounds that it has not: for heads, silent connections and readers that stop."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dspyq.serve.problems import MEDIA_TYPE, TYPES

_MOST_HEADERS = 100
_LARGEST_HEAD_BYTES = 32 * 1024
#: A client that reads nothing for so long is cut off.
_STALLED_SECONDS = 30.0


def _refusal(status: str, slug: str, title: str, *, is_retryable: bool) -> bytes:
    """Return a whole response, for a request that has not come whole."""
    members = f'"type":"{TYPES}{slug}","title":"{title}","status":{status[:3]},"retryable":{str(is_retryable).lower()}'
    body = f"{{{members}}}"
    head = f"HTTP/1.1 {status}\r\ncontent-type: {MEDIA_TYPE.decode()}\r\ncontent-length: {len(body)}\r\n"
    return f"{head}connection: close\r\n\r\n{body}".encode()


_TOO_LARGE = _refusal(
    "431 Request Header Fields Too Large", "head-too-large", "The head is too large", is_retryable=False
)
_TOO_SLOW = _refusal("408 Request Timeout", "too-slow", "The body did not come in time", is_retryable=True)


class _HeadTooLarge(Exception):
    """Ends the parsing of a head."""


class DoorProtocol(HttpToolsProtocol):
    """A connection whose client must send each head in time, in a bounded size, and must read.

    Attributes:
        header_seconds: ``serve.header_seconds``.
        body_seconds: ``serve.body_seconds``.
    """

    header_seconds: ClassVar[float] = 5.0
    body_seconds: ClassVar[float] = 10.0
    # Beyond thirty attributes, of which uvicorn's class has nearly all, each instance gets a dictionary of its own.
    __slots__ = ("_head_bytes", "_late", "_stalled")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Expect a head."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Expect the rest of a head."""
        super().on_message_begin()
        self._head_bytes = 0
        if self._late is None:  # another request on a kept connection
            self._arm()

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL."""
        super().on_url(url)
        self._bound(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        super().on_header(name, value)
        self._bound(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Begin the request, and expect its body."""
        self._disarm()
        super().on_headers_complete()
        self._late = self.loop.call_later(self.body_seconds, self._refuse_body)

    def on_message_complete(self) -> None:
        """Note that the request is there."""
        self._disarm()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, unless the connection is closed for another reason."""
        if not self._is_closing:
            super().send_400_response(msg)

    def pause_writing(self) -> None:
        """Give the client a while to read."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(_STALLED_SECONDS, self._abort)

    def resume_writing(self) -> None:
        """Note that the client reads."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, whether or not its client reads the last response to its end."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(_STALLED_SECONDS, self._abort)

    def _bound(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if (self._head_bytes > _LARGEST_HEAD_BYTES or len(self.headers) > _MOST_HEADERS) and not self._is_closing:
            self.transport.write(_TOO_LARGE)
            self._end()
            raise _HeadTooLarge

    @property
    def _is_closing(self) -> bool:
        return self.transport.is_closing()

    def _arm(self) -> None:
        self._late = self.loop.call_later(self.header_seconds, self._end)

    def _disarm(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end(self) -> None:
        self._late = None
        if not self._is_closing:
            self.transport.close()
            self.loop.call_later(_STALLED_SECONDS, self._abort)

    def _refuse_body(self) -> None:
        """Refuse a request whose body does not come, unless it is answered; for its endpoint, the client has left."""
        cycle = self.cycle
        if not (cycle.response_started or self._is_closing):
            self.transport.write(_TOO_SLOW)
        cycle.disconnected = True
        cycle.message_event.set()
        self._end()

    def _abort(self) -> None:
        self.transport.abort()
