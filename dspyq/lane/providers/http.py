"""HTTP requests to a provider's batch interface, on the standard library: each is sent once, and large bodies stream.

An error states how far its request came, since that decides whether it may be repeated.
"""

from __future__ import annotations

import base64
import http.client
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import orjson

from dspyq.config.secrets import process_secrets
from dspyq.guards.provider_access import ProviderAccess
from dspyq.lane.providers.errors import (
    BatchInterfaceClosed,
    BatchInterfaceError,
    CreationUnknown,
    EnqueuedLimitReached,
    ProviderBusy,
    RemoteMissing,
    ReplyUnusable,
    ShipmentRefused,
)

_PIECE_BYTES = 65_536
#: Providers read the whole of a large body before they answer.
_LEAST_TIMEOUT_OF_LARGE_SECONDS = 300.0
#: A line beyond this is no reply; it would fill the memory.
MOST_LINE_BYTES = 64 * 1024 * 1024
_MOST_ERROR_BYTES = 262_144
_SHOWABLE_CODE = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST_CODE = 64
_OK = range(200, 300)
_REDIRECTS = range(300, 400)
_FIRST_SERVER_ERROR = 500
#: The account: a key, a permission, a bill. Every other request is refused too until its owner acts.
_ACCOUNT = frozenset({401, 402, 403})
_ACCOUNT_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_MISSING, _TIMEOUT, _NO_METHOD, _CONFLICT, _TOO_MANY = 404, 408, 405, 409, 429
#: A limit of what may be queued, as OpenAI, Azure and Gemini name it.
QUOTA_CODES = frozenset({"token_limit_exceeded", "request_limit_exceeded", "RESOURCE_EXHAUSTED"})


@dataclass(frozen=True)
class StreamedBody:
    """A request's body in pieces of a known length in total.

    Attributes:
        head: The bytes before the content.
        content: The file with the content, read from its start.
        tail: The bytes after it.
        content_bytes: The content's length.
    """

    head: bytes
    content: IO[bytes]
    tail: bytes
    content_bytes: int

    @property
    def length(self) -> int:
        """The bytes of all of it."""
        return len(self.head) + self.content_bytes + len(self.tail)

    def pieces(self) -> Iterator[bytes]:
        """Yield it."""
        yield self.head
        self.content.seek(0)
        while piece := self.content.read(_PIECE_BYTES):
            yield piece
        yield self.tail


@dataclass(frozen=True)
class OutgoingRequest:
    """A request.

    Attributes:
        method: The method.
        path: The path below the base URL, or a whole URL.
        query: Its query.
        body: The body, if it has one.
        headers: Headers beside those of the access.
        creates: Whether a batch may exist afterwards.
    """

    method: str
    path: str
    query: Mapping[str, str | int] = field(default_factory=dict)
    body: bytes | StreamedBody | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    creates: bool = False


class ProviderHttp:
    """HTTP to one provider. Each request has a connection of its own: they are minutes apart.

    Args:
        access: The access of live calls.
        renew: Returns it anew for each request: some credentials expire within a batch's time.
    """

    def __init__(self, access: ProviderAccess, renew: Callable[[], ProviderAccess] | None = None) -> None:
        self.access = access
        self._renew = renew

    def _headers(self) -> dict[str, str]:
        try:
            return dict((self.access if self._renew is None else self._renew()).headers)
        except Exception as error:  # noqa: BLE001 - of a cloud's credentials, whichever they are
            text = f"credentials cannot be read ({type(error).__name__}); see {self.access.setting}.api_key_env"
            raise BatchInterfaceClosed(self._text(text)) from None

    def get(self, path: str, **query: str | int) -> Any:
        """Return the JSON of a GET."""
        with self._exchange(OutgoingRequest("GET", path, query)) as response:
            return self._json(response)

    def delete(self, path: str) -> bool:
        """Send a DELETE; return False if there was nothing."""
        try:
            with self._exchange(OutgoingRequest("DELETE", path)) as response:
                self._read(response)
        except RemoteMissing:
            return False
        return True

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | StreamedBody,
        *,
        headers: Mapping[str, str] | None = None,
        creates: bool = False,
    ) -> Any:
        """Return the JSON of the reply to a POST.

        Args:
            path: The path.
            body: A JSON object, or a body that is streamed.
            headers: Further headers.
            creates: Whether a batch may exist afterwards, so that a lost reply raises ``CreationUnknown``.
        """
        sent = body if isinstance(body, StreamedBody) else orjson.dumps(body)
        request = OutgoingRequest("POST", path, body=sent, headers=headers or {}, creates=creates)
        with self._exchange(request) as response:
            return self._json(response, creates=creates)

    def cancel(self, path: str) -> None:
        """Send a POST that cancels; a batch that has ended already refuses that, which is no error."""
        try:
            self.post(path, {})
        except ShipmentRefused:
            return
        except ProviderBusy as error:
            if error.status != _CONFLICT:
                raise

    def header_of_post(
        self, path: str, body: Mapping[str, Any], header: str, headers: Mapping[str, str] | None = None
    ) -> str:
        """Return a header of the reply to a POST; empty if it has none."""
        request = OutgoingRequest("POST", path, body=orjson.dumps(body), headers=headers or {})
        with self._exchange(request) as response:
            self._read(response)
            return response.getheader(header) or ""

    def lines(self, path: str, **query: str | int) -> Iterator[bytes]:
        """Yield the lines of a body as they come, without blank ones, secrets removed.

        Raises:
            ReplyUnusable: If it is cut short, or a line has no end.
        """
        with self._exchange(OutgoingRequest("GET", path, query)) as response:
            for line in self._split(self._pieces(response)):
                if line.strip():
                    yield process_secrets().scrub_reply(line)

    def _split(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the lines of a body; a long line is joined once, however many pieces it has."""
        begun: list[bytes] = []
        size_bytes = 0
        for piece in pieces:
            if b"\n" not in piece:
                begun.append(piece)
                size_bytes += len(piece)
                if size_bytes > MOST_LINE_BYTES:
                    raise ReplyUnusable(self._text("a line of the results has no end"))
                continue
            *lines, rest = b"".join([*begun, piece]).split(b"\n")
            yield from lines
            begun, size_bytes = [rest], len(rest)
        yield b"".join(begun)

    @contextmanager
    def _exchange(self, request: OutgoingRequest) -> Iterator[http.client.HTTPResponse]:
        """Send a request and yield its reply, if that is a success."""
        connection, target, headers = self._connect(request)
        if request.body is not None:
            headers["content-type"] = "application/json"
        headers |= request.headers
        try:
            try:
                connection.connect()
            except (OSError, http.client.HTTPException) as error:
                raise ProviderBusy(self._text(f"no connection ({type(error).__name__})")) from None
            try:
                response = _send(connection, request, target, headers)
            except (OSError, http.client.HTTPException) as error:
                raise self._lost(error, creates=request.creates) from None
            if response.status not in _OK:
                raise self._error_of(response, request)
            yield response
        finally:
            connection.close()

    def _connect(self, request: OutgoingRequest) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        """Return a connection that is not open yet, the request's target, and the headers of the access."""
        is_whole = request.path.startswith(("http://", "https://"))
        url = request.path if is_whole else self.access.base_url + request.path
        parts = urlsplit(url)
        stated = "&".join(filter(None, (parts.query, self.access.query, urlencode(request.query))))
        target = (parts.path or "/") + (f"?{stated}" if stated else "")
        timeout = self.access.timeout_seconds
        if isinstance(request.body, StreamedBody):
            timeout = max(timeout, _LEAST_TIMEOUT_OF_LARGE_SECONDS)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        headers = self._headers()
        if self.access.proxy is None:
            return kind(parts.hostname or "", parts.port, timeout=timeout), target, headers
        proxy = urlsplit(self.access.proxy)
        connection = kind(proxy.hostname or "", proxy.port or 80, timeout=timeout)
        identity = _identity_of(proxy.username, proxy.password)
        if parts.scheme == "https":
            connection.set_tunnel(parts.hostname or "", parts.port, identity)
            return connection, target, headers
        return connection, f"http://{parts.netloc}{target}", headers | identity

    def _json(self, response: http.client.HTTPResponse, *, creates: bool = False) -> Any:
        try:
            return orjson.loads(process_secrets().scrub_reply(self._read(response)) or b"{}")
        except (orjson.JSONDecodeError, ReplyUnusable):
            if creates:
                text = self._text("the reply to a creation cannot be read")
                raise CreationUnknown(text, status=response.status) from None
            raise ReplyUnusable(self._text("a reply is no JSON, or is cut short"), status=response.status) from None

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        return b"".join(self._pieces(response))

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """Yield a body; ``http.client`` takes one that ends too early for whole if it is read in pieces."""
        expected, received = response.length, 0
        try:
            while piece := response.read(_PIECE_BYTES):
                received += len(piece)
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise ReplyUnusable(self._text(f"a reply is cut short ({type(error).__name__})")) from None
        if expected is not None and received < expected:
            raise ReplyUnusable(self._text("a reply is cut short"))

    def _lost(self, error: Exception, *, creates: bool) -> BatchInterfaceError:
        name = type(error).__name__
        if creates:
            return CreationUnknown(self._text(f"the reply to a creation was lost ({name})"))
        return ProviderBusy(self._text(f"a request was not answered ({name})"))

    def _error_of(self, response: http.client.HTTPResponse, request: OutgoingRequest) -> BatchInterfaceError:
        status, code = response.status, _code_in(response)
        retry_after = read_seconds(response.getheader("retry-after"))
        is_lost = request.creates and (status >= _FIRST_SERVER_ERROR or status == _TIMEOUT)
        setting = self.access.setting
        kind: type[BatchInterfaceError]
        if status == _TOO_MANY and request.creates and code in QUOTA_CODES:
            kind, text = EnqueuedLimitReached, "too much is queued"
        elif status in _ACCOUNT or code in _ACCOUNT_CODES:
            kind, text = (
                BatchInterfaceClosed,
                f"the account is refused; see {self.access.setting}.api_key_env, its billing",
            )
        elif status in {_MISSING, _NO_METHOD} and (request.creates or isinstance(request.body, StreamedBody)):
            kind, text = BatchInterfaceClosed, f"the endpoint has none; set {setting}.batch to off"
        elif status == _MISSING:
            kind, text = RemoteMissing, "not found"
        elif is_lost:
            kind, text = CreationUnknown, "it is unknown whether a batch was created"
        elif status >= _FIRST_SERVER_ERROR or status in {_TIMEOUT, _CONFLICT, _TOO_MANY}:
            kind, text = ProviderBusy, "the provider is busy"
        elif status in _REDIRECTS:
            kind, text = BatchInterfaceClosed, f"a redirect is not followed; see {setting}.api_base"
        else:
            kind, text = ShipmentRefused, "the provider refuses a request"
        shown = f"{text} (HTTP {status}{f' {code}' if code else ''})"
        return kind(self._text(shown), status=status, code=code, retry_after_seconds=retry_after)

    def _text(self, text: str) -> str:
        return f"{self.access.setting}: batch interface: {text}"


def _send(
    connection: http.client.HTTPConnection, request: OutgoingRequest, target: str, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    """Send a request once and return the head of its reply."""
    connection.putrequest(request.method, target, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    pieces: Iterable[bytes] = ()
    body = request.body
    if isinstance(body, StreamedBody):
        connection.putheader("content-length", str(body.length))
        pieces = body.pieces()
    elif body is not None:
        connection.putheader("content-length", str(len(body)))
        pieces = (body,)
    connection.endheaders()
    with suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it had read all
        for piece in pieces:
            connection.send(piece)
    return connection.getresponse()


def quoted(part: str) -> str:
    """Return an id as a part of a path."""
    return quote(part, safe="")


def read_seconds(value: str | None) -> float | None:
    """Read the seconds of a ``retry-after``; None for a date, and without one."""
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def showable(code: object) -> str:
    """Return a provider's code as it may stand in an error: letters, digits and few signs."""
    return _SHOWABLE_CODE.sub("_", str(code or ""))[:_LONGEST_CODE]


def _code_in(response: http.client.HTTPResponse) -> str:
    """Return the code of an error's body, in the forms of OpenAI, Anthropic and Google; empty if there is none."""
    with suppress(OSError, http.client.HTTPException, orjson.JSONDecodeError):
        body = orjson.loads(response.read(_MOST_ERROR_BYTES))
        error = body.get("error") if isinstance(body, dict) else None
        if isinstance(error, dict):
            code = error.get("code")
            return showable(error.get("status") or (code if isinstance(code, str) else None) or error.get("type"))
    return ""


def _identity_of(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
