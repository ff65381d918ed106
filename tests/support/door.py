"""A ``dspyq serve`` process."""

from __future__ import annotations

import itertools
import json
import re
import sys
from typing import Any

import httpx

from tests.support.processes import LocalProcess, free_port

_numbers = itertools.count(1)
#: The client waits longer than any server of these tests does.
_CLIENT_SECONDS = 60.0


class Door(LocalProcess):
    """A ``dspyq serve`` process, on a port of its own, with its page of metrics on the next.

    Attributes:
        url: The root of its API.
        metrics_url: The root of its metrics and probes.
        api: A client of the API.
    """

    def __init__(self, env: dict[str, str], arguments: tuple[str, ...] = ()) -> None:
        self.port = free_port(8)
        env = {"DSPYQ_SERVE__METRICS_PORT": str(self.port + 1), **env}
        command = [sys.executable, "-m", "dspyq", "serve", "--port", str(self.port), *arguments]
        super().__init__(f"door{next(_numbers)}", command, ready_line="server_ready", env=env, module="dspyq")
        self.url = f"http://127.0.0.1:{self.port}"
        self.metrics_url = f"http://127.0.0.1:{self.port + 1}"
        self.api = httpx.Client(base_url=self.url, timeout=_CLIENT_SECONDS)

    def ask(
        self,
        question: str,
        program: str = "qa",
        *,
        prefer: str | None = None,
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> httpx.Response:
        """Ask a program with one input, ``question``."""
        body = {"inputs": {"question": question}, **members}
        stated = {**({"Prefer": prefer} if prefer else {}), **(headers or {})}
        return self.api.post(f"/v1/programs/{program}/predictions", json=body, headers=stated)

    def look(self, public_id: str, **parameters: str) -> dict[str, Any]:
        """Return a prediction as it is now."""
        reply = self.api.get(f"/v1/predictions/{public_id}", params=parameters)
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        page = httpx.get(f"{self.metrics_url}/metrics", timeout=_CLIENT_SECONDS).text
        samples = re.findall(rf"^{re.escape(name)}(?:{{(.*)}})? (\S+)$", page, re.MULTILINE)
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(float(value) for found, value in samples if all(each in found for each in wanted))

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries of its log."""
        return [json.loads(line) for line in self.logs().splitlines() if line.startswith("{")]

    def close(self) -> None:
        """End it."""
        self.api.close()
        super().close()
