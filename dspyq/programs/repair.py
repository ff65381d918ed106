"""Repair of replies that cannot be parsed as they came, to read at least their usage and, if possible, their text.

Such a reply is paid for, whatever it contains: half of a surrogate pair, a count in text, a number that is none.
"""

from __future__ import annotations

import json
import math
from contextvars import ContextVar
from typing import Any

from dspyq.programs.usage import MOST_TOKENS

_USAGES = frozenset({"usage", "usageMetadata"})
_LOGPROBS = frozenset({"logprobs", "logprobsResult"})
_OK = range(200, 300)
#: Codes beside an answer that state success, as some gateways write them into an ``error``.
_SUCCESS_CODES = frozenset({0, 200, "0", "200"})


class KeptReply:
    """The latest reply of an attempt, as it came."""

    def __init__(self) -> None:
        self._response: Any = None
        self._body: bytes | None = None
        self._mended: bytes | None = None

    def mend(self) -> bool:
        """Answer the same request with this reply, repaired; return True if there was anything to repair."""
        if self._mended is not None or (body := self.body_of_success()) is None:
            return False
        self._mended = mended(body)
        return self._mended is not None

    def is_no_stream(self) -> bool:
        """Answer the same request with this reply as it came; return True if it is a whole one, and no stream."""
        if self._mended is not None or (body := self.body_of_success()) is None:
            return False
        self._mended = body
        return True

    def body_of_success(self) -> bytes | None:
        """Return the body of a reply of status 200; None for any other, and for a stream."""
        return None if self._body is None or self._response.status not in _OK else self._body

    def answer(self, send: Any, request: Any) -> Any:
        """Return the reply to a request: the repaired one, or else send it."""
        if self._mended is None:
            self._response = send(request)
            if "text/event-stream" in (self._response.header("content-type") or ""):
                return self._response
            self._body = self._response.read()
        self._response._chunks = iter((self._mended or self._body,))  # noqa: SLF001 - it was read, and is to be again
        return self._response


_kept: ContextVar[KeptReply | None] = ContextVar("kept_reply", default=None)


class keeping_reply:  # noqa: N801 - as the standard library's context managers
    """Context that keeps the reply of the attempt that runs in it; a class, which costs less than a generator."""

    __slots__ = ("_token",)

    def __enter__(self) -> KeptReply:
        """Begin."""
        kept = KeptReply()
        self._token = _kept.set(kept)
        return kept

    def __exit__(self, *_: object) -> None:
        """End."""
        _kept.reset(self._token)


class KeepsReplies:
    """Mixin for a transport of DSPy that keeps replies and answers from a kept one."""

    def stream(self, request: Any) -> Any:
        """Send a request, or answer it with the kept reply."""
        send, kept = super().stream, _kept.get()  # type: ignore[misc]  # the transport's
        return send(request) if kept is None else kept.answer(send, request)


def mended(body: bytes) -> bytes | None:
    """Return a reply's body, repaired; None if it is no JSON or has nothing to repair."""
    try:
        reply = json.loads(body)
        readable = _readable(reply)
        if isinstance(readable, dict) and readable.get("choices") and is_no_error(readable.get("error")):
            del readable["error"]
        return None if _is_same(readable, reply) else json.dumps(readable).encode()
    except (ValueError, RecursionError):
        return None


def is_no_error(stated: Any) -> bool:
    """Return True if what stands as an ``error`` beside an answer states none: it is empty, or its code is success."""
    return isinstance(stated, dict) and (not stated or _code_of(stated) in _SUCCESS_CODES)


def _code_of(stated: dict[str, Any]) -> int | str | None:
    code = stated.get("code")
    return code if isinstance(code, int | str) and not isinstance(code, bool) else None


def readable_text(text: str) -> str:
    """Return a text with U+FFFD in place of each half of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _is_same(readable: Any, reply: Any) -> bool:
    return json.dumps(readable) == json.dumps(reply)


def readable_texts(value: Any) -> Any:
    """Apply ``readable_text`` to all texts of a value, in lists and dicts too."""
    match value:
        case str():
            return readable_text(value)
        case list():
            return [readable_texts(item) for item in value]
        case dict():
            return {readable_texts(name): readable_texts(item) for name, item in value.items()}
    return value


def _readable(value: Any) -> Any:
    match value:
        case str():
            return readable_text(value)
        case float():
            return value if math.isfinite(value) else None
        case list():
            return [_readable(item) for item in value]
        case dict():
            return {readable_text(name): _readable_field(name, item) for name, item in value.items()}
    return value


def _readable_field(name: str, value: Any) -> Any:
    if name in _USAGES:
        return _counts(value) if isinstance(value, dict) else None
    if name in _LOGPROBS and not _has_finite_numbers(value):
        return None
    return _readable(value)


def _counts(usage: dict[str, Any]) -> dict[str, Any]:
    """Return a usage with whole counts only, besides fields that are no counts; invalid counts are left out."""
    found = ((name, _count_or_rest(name, value)) for name, value in usage.items())
    return {readable_text(name): value for name, value in found if value is not None}


def _count_or_rest(name: str, value: Any) -> Any:
    match value:
        case dict():
            return _counts(value)
        case list():
            return [_counts(item) for item in value if isinstance(item, dict)]
    if name.lower().endswith(("tokens", "tokencount")):
        return _whole(value)
    if name.lower().endswith("details"):
        return None
    return _readable(value)


def _whole(value: Any) -> int | None:
    """Return a count given as a number, fraction or text; None if it is no count, such as a negative one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        count = float(value)
    except (ValueError, OverflowError):
        return None
    return math.ceil(count) if 0 <= count <= MOST_TOKENS else None


def _has_finite_numbers(value: Any) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case list():
            return all(map(_has_finite_numbers, value))
        case dict():
            return all(map(_has_finite_numbers, value.values()))
    return True
