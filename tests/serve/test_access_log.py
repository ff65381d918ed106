"""The log of requests under load."""

import asyncio
import logging
import time
from types import SimpleNamespace

from dspyq.serve.process import access_log


def exchange():
    return SimpleNamespace(
        started_at=time.monotonic(), scope={"method": "POST"}, route="/v1", status=200, sent_bytes=1, request_id="r",
        caller=None, prediction="", cache_level="memory",
    )  # fmt: skip


def test_a_busy_server_hands_many_lines_at_once_to_the_thread_that_writes(monkeypatch):
    written = []
    monkeypatch.setattr(access_log, "_write", lambda data: written.append(data.count(b"\n")))
    monkeypatch.setattr(logging.getLogger("dspyq.access"), "level", logging.INFO)

    async def serve():
        log, began, noted = access_log.AccessLog(for_people=False), time.monotonic(), 0
        while time.monotonic() - began < 0.5:
            log.note(exchange())
            noted += 1
            await asyncio.sleep(0.001)
        seconds = time.monotonic() - began
        await log.close()
        return noted, seconds

    noted, seconds = asyncio.run(serve())
    assert sum(written) == noted
    assert len(written) <= seconds * 10 + 2
