"""Bodies of requests: read within a size, and parsed; the protocol sees to their time."""

from __future__ import annotations

from typing import Any

import orjson

from dspyq.core.depth import MOST_DEPTH, is_too_deep
from dspyq.serve.exchange import Exchange
from dspyq.serve.problems import BODY_TOO_LARGE, MALFORMED, UNSUPPORTED_MEDIA_TYPE, Declined

#: The rest of a body that is not read would be taken for the next request.
_CLOSE = ((b"connection", b"close"),)
_JSON = b"application/json"


async def read_json(exchange: Exchange, most_bytes: int) -> Any:
    """Read a request's body as JSON; the arguments are those of ``read_json_text``.

    Raises:
        Declined: If it is no JSON, of another media type, or too large.
    """
    return parse_json(await read_json_text(exchange, most_bytes))


async def read_json_text(exchange: Exchange, most_bytes: int) -> bytes:
    """Read a request's body, which is to be JSON.

    Args:
        exchange: The request.
        most_bytes: The most bytes it may have.

    Raises:
        Declined: If it is of another media type, or too large.
    """
    check_media_type(exchange, _JSON)
    return await read_body(exchange, most_bytes)


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        Declined: If it is none, or nests too deep.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Declined(MALFORMED, f"the body is not JSON: {error.msg} at byte {error.pos}") from None
    # What opens fewer brackets than that cannot nest deeper, and most bodies do.
    if body.count(b"[") + body.count(b"{") > MOST_DEPTH and is_too_deep(value):
        raise Declined(MALFORMED, f"the body nests deeper than {MOST_DEPTH} levels")
    return value


def check_media_type(exchange: Exchange, wanted: bytes) -> None:
    """Check a body's media type and encoding.

    A form or a plain text, which web pages may send to any host unasked, is refused with all else.

    Raises:
        Declined: If it is another one.
    """
    stated = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if stated != wanted:
        raise Declined(
            UNSUPPORTED_MEDIA_TYPE, f"send the body as {wanted.decode()}", headers=((b"accept-post", wanted), *_CLOSE)
        )
    if exchange.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Declined(UNSUPPORTED_MEDIA_TYPE, "send the body without a Content-Encoding", headers=_CLOSE)


async def read_body(exchange: Exchange, most_bytes: int) -> bytes:
    """Read a whole body.

    Raises:
        Declined: If it is too large.
        ConnectionResetError: If the client left before its end, or was cut off for it was too slow.
    """
    stated = exchange.headers.get(b"content-length")
    if stated is not None and int(stated) > most_bytes:
        raise _too_large(most_bytes)
    message = await _next_message(exchange)
    body: bytes = message["body"]
    parts = [body]
    size = len(body)
    while size <= most_bytes and message.get("more_body"):
        message = await _next_message(exchange)
        parts.append(message["body"])
        size += len(message["body"])
    if size > most_bytes:
        raise _too_large(most_bytes)
    return body if len(parts) == 1 else b"".join(parts)


async def _next_message(exchange: Exchange) -> Any:
    message = await exchange.receive()
    if message["type"] == "http.disconnect":
        raise ConnectionResetError("the client left")
    return message


def _too_large(most_bytes: int) -> Declined:
    return Declined(BODY_TOO_LARGE, f"the body may have {most_bytes:,} bytes", headers=_CLOSE)
