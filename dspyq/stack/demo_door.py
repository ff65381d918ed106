"""The demo's HTTP door: one question over HTTP, as any client would ask it."""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspyq.stack.embedded import loopback
from dspyq.stack.embedded.supervised_process import SupervisedProcess
from dspyq.stack.processes import GRACE_SECONDS, READY_TIMEOUT_SECONDS, StackFailed, describe_end

DOOR_COMMAND = "dspyq serve"
_ANSWER_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Exchanged:
    """A question over HTTP and its reply.

    Attributes:
        curl: The command for it, in two lines.
        status: The reply's status.
        reply: The reply's body: a prediction, or a problem.
    """

    curl: str
    status: int
    reply: dict[str, Any]


@contextmanager
def open_door(log: Path) -> Iterator[int]:
    """Run a door on a free port of this machine, and yield the port.

    Args:
        log: The file for its output.

    Raises:
        StackFailed: If it does not start.
    """
    port = loopback.free_port()
    ports = {"DSPYQ_SERVE__PORT": str(port), "DSPYQ_SERVE__METRICS_PORT": str(loopback.free_port())}
    command = [sys.executable, "-m", *DOOR_COMMAND.split()]
    environment = {**os.environ, **ports}
    with (
        log.open("wb") as output,
        SupervisedProcess(command, environment=environment, output=output, grace_seconds=GRACE_SECONDS) as door,
    ):
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while not loopback.answers_http(port, "/healthz"):
            if (status := door.poll()) is not None or time.monotonic() > deadline:
                raise StackFailed(describe_end("the HTTP door", status, log))
            time.sleep(_POLL_SECONDS)
        yield port


def ask_door(port: int, program: str, inputs: Mapping[str, str]) -> Exchanged:
    """Ask a program over HTTP.

    Raises:
        StackFailed: If the door does not reply.
    """
    path = f"/v1/programs/{program}/predictions"
    body = json.dumps({"inputs": dict(inputs)})
    connection = http.client.HTTPConnection(loopback.ADDRESS, port, timeout=_ANSWER_TIMEOUT_SECONDS)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        status, reply = response.status, json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise StackFailed(f"the HTTP door did not reply: {type(error).__name__}: {error}") from error
    finally:
        connection.close()
    return Exchanged(f"curl http://{loopback.ADDRESS}:{port}{path} --json \\\n  '{body}'", status, reply)
