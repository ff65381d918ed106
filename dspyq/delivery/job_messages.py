"""Reading a job's message back, outside of the worker that runs it."""

from __future__ import annotations

import base64
from typing import Any

from celery.app.task import Context
from kombu.serialization import loads as decode
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads


def read_request(message: bytes) -> Context | None:
    """Return the request a message makes, with its links, chain and chord; None where it cannot be read."""
    try:
        envelope: dict[str, Any] = loads(bytes_to_str(message))
        headers = envelope["headers"]
        if envelope["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(envelope["body"])
        else:
            body = envelope["body"]
        args, kwargs, embed = decode(body, envelope["content-type"], envelope["content-encoding"])
        links = {name: embed.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}
        return Context({**headers, **links, "args": args, "kwargs": kwargs, "delivery_info": {}, "properties": {}})
    except Exception:  # noqa: BLE001 - whatever is wrong with it
        return None
