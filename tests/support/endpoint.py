"""A provider's endpoint in a process of its own, which tests and benchmarks delay, fail and count.

It answers chat requests in the forms of OpenAI, Anthropic and Gemini, and has the batch interfaces of all three.

``python -m tests.support.endpoint --port 0`` serves until it is stopped and prints its URL. Unscripted, it answers
at once, ``echo:`` and the last input's value (see ``replies``).
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support.batch_endpoint.control import BatchControl
from tests.support.endpoint_records import Counts, Request, Script
from tests.support.endpoint_server import serve
from tests.support.processes import LocalProcess, wait_until

_CONTROL_TIMEOUT_SECONDS = 30
#: How late what a test waits for may come: a worker imports and compiles before its first call.
LATE_SECONDS = 60.0


class Endpoint:
    """The endpoint's process and its control.

    Attributes:
        url: What a model's ``api_base`` is set to; ends in ``/v1``. Gemini's form is at ``/v1beta`` beside it.
        process: The process.
        batches: The control of the batch interfaces.
    """

    def __init__(self, port: int = 0) -> None:
        arguments = [sys.executable, "-m", "tests.support.endpoint", "--port", str(port)]
        self.process = LocalProcess("endpoint", arguments, ready_line="http://")
        self.url = self.process.wait_for_line("http://")
        self.batches = BatchControl(self._control)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def script(self, **behaviour: Any) -> None:
        """Add a behaviour; the arguments are ``Script``'s fields.

        ``script(times=2, status=500)`` fails the next two requests; ``script(latency_seconds=1)`` delays all.
        """
        self._control("script", asdict(Script(**behaviour)))

    def clear(self) -> None:
        """Drop all scripts; counts and held requests stay."""
        self._control("clear")

    def hold(self, containing: str | None = None) -> None:
        """Let requests wait, all or those whose prompt contains a text, until ``release()``."""
        self._control("hold", {"containing": containing})

    def release(self, count: int | None = None) -> None:
        """Let waiting requests go: all, and hold no more; or this many, the first that came first."""
        self._control("release", {"count": count})

    def counts(self) -> Counts:
        """Return what happened since the last reset."""
        return Counts(**self._control("counts"))

    def calls(self) -> int:
        """Return how many requests came since the last reset."""
        return self.counts().calls

    def requests(self) -> list[Request]:
        """Return the last 5,000 requests since the last reset, in the order they came."""
        return [Request(**request) for request in self._control("requests")]

    def reset(self) -> None:
        """Forget scripts, counts and requests; cut off what is held or still being answered."""
        self._control("reset")

    def wait_for_calls(self, count: int, timeout_seconds: float = LATE_SECONDS) -> None:
        """Wait until this many requests came since the last reset; held ones count.

        Raises:
            TimeoutError: If they do not.
        """
        self._wait(lambda: self.calls() >= count, timeout_seconds, f"{count} calls")

    def wait_for_answers(self, count: int, timeout_seconds: float = LATE_SECONDS) -> None:
        """Wait until this many responses were written whole since the last reset.

        Raises:
            TimeoutError: If they are not.
        """
        self._wait(lambda: self.counts().answered >= count, timeout_seconds, f"{count} answers")

    def wait_until_idle(self, timeout_seconds: float = LATE_SECONDS) -> None:
        """Wait until no request is in flight, because all were answered or their clients left.

        Raises:
            TimeoutError: If one stays.
        """
        self._wait(lambda: self.counts().in_flight == 0, timeout_seconds, "no request in flight")

    def close(self) -> None:
        """End the process."""
        self.process.close()

    def _wait(self, condition: Callable[[], bool], timeout_seconds: float, waiting_for: str) -> None:
        wait_until(condition, timeout_seconds, lambda: f"{waiting_for} at the endpoint; it has {self.counts()}")

    def _control(self, action: str, arguments: dict[str, Any] | None = None) -> Any:
        # A connection for each: tests control it from several threads.
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=_CONTROL_TIMEOUT_SECONDS)
        try:
            connection.request("POST", f"/control/{action}", json.dumps(arguments or {}))
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def main() -> None:
    """Serve, and print the URL as one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")

    def announce(url: str) -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()

    asyncio.run(serve(parser.parse_args().port, announce))


if __name__ == "__main__":
    main()
