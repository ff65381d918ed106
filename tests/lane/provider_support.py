"""Clients of the endpoint's three batch interfaces, and shipments for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dspyq.guards.provider_access import ProviderAccess
from dspyq.lane.providers.choice import provider_for
from dspyq.lane.providers.protocol import BatchProvider, LineOutcome, RemoteBatch, RemoteLine, ShipmentLine
from tests.lane.body_forms import DIALECTS, HEADERS, body_of
from tests.support.endpoint import Endpoint
from tests.support.processes import wait_until

PROTOCOLS = ("openai", "anthropic", "gemini")
_LATE_SECONDS = 120.0


def access_to(endpoint: Endpoint, protocol: str, *, prefix: str = "", **changes: Any) -> ProviderAccess:
    """Return the access to an interface of the endpoint."""
    root = endpoint.url.removesuffix("/v1") + prefix
    base_url = f"{root}/v1beta" if protocol == "gemini" else f"{root}/v1"
    stated = {"headers": HEADERS[protocol], "timeout_seconds": 30.0, "model": "m", "setting": "models.fast"} | changes
    return ProviderAccess(DIALECTS[protocol], base_url, **stated)


def client(endpoint: Endpoint, protocol: str, **changes: Any) -> BatchProvider:
    """Return the client of an interface of the endpoint."""
    return provider_for(protocol, access_to(endpoint, protocol, **changes))


def lines_of(protocol: str, count: int, mark: str = "a") -> Iterator[ShipmentLine]:
    """Yield lines; each asks for its own number."""
    return ((f"{mark}-{number}", body_of(protocol, f"question {mark}-{number}")) for number in range(count))


def submit(provider: BatchProvider, protocol: str, name: str, count: int, mark: str = "a") -> RemoteBatch:
    """Create a batch of so many lines, in the steps of its interface."""
    if provider.has_files:
        return provider.create(name, file_id=provider.upload(name, lines_of(protocol, count, mark)))
    return provider.create(name, lines=lines_of(protocol, count, mark))


def ended(provider: BatchProvider, batch_id: str) -> RemoteBatch:
    """Poll a batch until its state is final."""
    found: list[RemoteBatch] = []

    def is_final() -> bool:
        found[:] = [provider.poll(batch_id)]
        return found[0].state.is_final

    wait_until(is_final, _LATE_SECONDS, lambda: f"the end of {found}")
    return found[0]


def results(provider: BatchProvider, batch: RemoteBatch) -> dict[str, RemoteLine]:
    """Return the lines of a batch by their ids."""
    return {line.custom_id: line for line in provider.read_lines(batch)}


def outcomes(lines: dict[str, RemoteLine]) -> dict[LineOutcome, int]:
    """Return how many lines have each outcome."""
    found = [line.outcome for line in lines.values()]
    return {outcome: found.count(outcome) for outcome in sorted(set(found))}


def text_of_reply(line: RemoteLine) -> str:
    """Return the text of a reply of any form."""
    body: Any = line.body
    if "choices" in body:
        return str(body["choices"][0]["message"]["content"])
    return str(
        body["content"][0]["text"] if "content" in body else body["candidates"][0]["content"]["parts"][0]["text"]
    )
