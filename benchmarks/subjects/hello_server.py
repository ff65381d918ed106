"""The server of the door with the smallest application there is: ``python -m … PORT``."""

from __future__ import annotations

import logging
import sys
from typing import Any

import uvicorn

from dspyq.serve.protocol import DoorProtocol

_BODY = b'{"hello":"world"}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer any request."""
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


class HelloServer(uvicorn.Server):
    """Prints a line once it listens."""

    async def startup(self, sockets: Any = None) -> None:
        """Listen."""
        await super().startup(sockets)
        print("hello_ready", flush=True)


def main() -> None:
    """Serve as ``dspyq serve`` does."""
    config = uvicorn.Config(
        hello, port=int(sys.argv[1]), http=DoorProtocol, loop="uvloop", ws="none", lifespan="off", interface="asgi3",
        access_log=False, log_config=None, log_level=logging.WARNING, server_header=False, proxy_headers=False,
    )  # fmt: skip
    HelloServer(config).run()


if __name__ == "__main__":
    main()
