"""The server and the framework of the door, with the smallest application there is: ``python -m … PORT``."""

from __future__ import annotations

import logging
import sys
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, Router

from dspyq.serve.process.protocol import DoorProtocol


async def hello(request: Request) -> JSONResponse:
    """Answer any request."""
    del request
    return JSONResponse({"hello": "world"})


class HelloServer(uvicorn.Server):
    """Prints a line once it listens."""

    async def startup(self, sockets: Any = None) -> None:
        """Listen."""
        await super().startup(sockets)
        print("hello_ready", flush=True)


def main() -> None:
    """Serve as ``dspyq serve`` does."""
    config = uvicorn.Config(
        Router([Route("/", hello)]),
        port=int(sys.argv[1]),
        http=DoorProtocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        log_level=logging.WARNING,
        server_header=False,
        proxy_headers=False,
    )
    HelloServer(config).run()


if __name__ == "__main__":
    main()
