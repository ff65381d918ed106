"""The end of a server: waiting callers get their answer's place, streams are sent elsewhere, and nothing is lost."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.processes import eventually

#: On a machine that does much else.
SPARE_SECONDS = 20.0


def ask(url, callers, streams):
    """Ask all at once, in a process of its own; return what each caller and each stream got."""
    import asyncio
    import json

    import httpx

    place = "/v1/programs/qa/predictions"

    async def wait(client, number):
        reply = await client.post(place, json={"inputs": {"question": f"waits {number}"}})
        return reply.status_code, reply.headers.get("location", "")

    async def listen(client, number):
        body = {"inputs": {"question": f"listens {number}"}, "stream": True}
        name = prediction = ""
        async with client.stream("POST", place, json=body) as reply:
            async for line in reply.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: ") and not prediction:
                    prediction = json.loads(line.removeprefix("data: "))["id"]
        return name, f"/v1/predictions/{prediction}"

    async def run():
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
            waits = [wait(client, number) for number in range(callers)]
            return await asyncio.gather(*waits, *(listen(client, number) for number in range(streams)))

    return asyncio.run(run())


def end_with(server, run_producer, callers, streams):
    """End a server with so many callers; return what they got, and the seconds that its end took."""
    with ThreadPoolExecutor(1) as clients:
        asked = clients.submit(run_producer, ask, url=server.url, callers=callers, streams=streams, timeout_seconds=250)
        eventually(lambda: server.metric("dspyq_http_streams") == streams, 120)
        eventually(lambda: server.metric("dspyq_http_waiting") == callers + streams, 120)
        began = time.monotonic()
        server.send(signal.SIGTERM)
        eventually(lambda: not server.is_running or httpx.get(f"{server.metrics_url}/readyz").status_code == 503)
        assert server.wait(60) == 0
        return asked.result(), time.monotonic() - began


def check(found, callers, streams):
    """Check that each waiting caller got 202 and each stream ``reconnect``, with a place of its own."""
    assert {status for status, _ in found[:callers]} == {202}
    assert {name for name, _ in found[callers:]} == {"reconnect"}
    assert len({place for _, place in found}) == callers + streams


def check_answers(server, found):
    """Check that each has its answer at another server."""
    for _, place in found:
        assert server.api.get(place, params={"wait": "30"}).json()["status"] == "succeeded"


def test_waiting_callers_get_a_place_and_streams_another_server(door, run_producer, shared_worker, endpoint):
    del shared_worker
    endpoint.hold()
    server = door(env={"DSPYQ_SERVE__DRAIN_SECONDS": "1"})
    found, seconds = end_with(server, run_producer, 30, 8)
    check(found, 30, 8)
    assert seconds < 1 + 2 + SPARE_SECONDS
    endpoint.release()
    check_answers(door(), found)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_thousand_waiting_callers_and_200_streams_get_theirs_in_time_and_none_is_lost(
    door, run_producer, worker, settings_file
):
    """No worker runs at first, so that all wait; the clients have a process of their own."""
    drain_seconds, callers, streams = 2.0, 1_000, 200
    server = door(env={"DSPYQ_SERVE__DRAIN_SECONDS": str(drain_seconds), "DSPYQ_SERVE__WAIT_SECONDS": "600"})
    found, seconds = end_with(server, run_producer, callers, streams)
    check(found, callers, streams)
    assert seconds < drain_seconds + 2 + SPARE_SECONDS
    worker(settings_file({"workers": {"concurrency": 32}}))
    check_answers(door(), found)
