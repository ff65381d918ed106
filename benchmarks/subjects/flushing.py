"""Streams as a worker's runs do: a piece of text each, sent for all of them in one round trip, or one by one."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from dspyq.programs.reply_fields.chat import ChatFields
from dspyq.store.clients import jobs_client
from dspyq.store.keys import job_key
from dspyq.streaming.flusher import Flusher
from dspyq.streaming.run_log import RunLog

_FENCE = "1"
_PIECE = "a piece of some forty characters of text "
_PIECES_OF_A_TOKEN = 4


def measure(streams: int, flushes: int) -> dict[str, float]:
    """Measure the processor time of this process for each stream of a flush, and of each piece of a reply.

    Args:
        streams: How many runs stream.
        flushes: How often each.

    Returns:
        Seconds: ``together`` and ``alone`` for a stream's part of a flush, ``piece`` for a piece of a reply.
    """
    client = jobs_client()
    flusher = Flusher(client, client, is_one_redis=True)
    runs = [RunLog(f"stream-{number}", _FENCE, lambda: None) for number in range(streams)]
    for run in runs:
        client.hset(job_key(run.task_id), "fence", _FENCE)

    def together() -> None:
        flusher._send(runs, is_last=False)  # noqa: SLF001 - what its thread does

    def alone() -> None:
        for run in runs:
            flusher._send([run], is_last=False)  # noqa: SLF001 - as above

    found = {"together": [], "alone": []}
    for _ in range(flushes):
        for name, send in (("together", together), ("alone", alone)):
            for run in runs:
                run.add("delta", "answer", _PIECE)
            found[name].append(_seconds(send) / streams)
    return {name: median(seconds) for name, seconds in found.items()} | {"piece": _piece_seconds()}


def _piece_seconds() -> float:
    reply = f"[[ ## answer ## ]]\n{_PIECE * 500}\n\n[[ ## completed ## ]]"
    pieces = [reply[at : at + _PIECES_OF_A_TOKEN] for at in range(0, len(reply), _PIECES_OF_A_TOKEN)]

    def split() -> None:
        fields = ChatFields({"answer"}, lambda *_: None)
        for piece in pieces:
            fields.feed(piece)

    return median(_seconds(split) for _ in range(9)) / len(pieces)


def _seconds(act: Callable[[], None]) -> float:
    before = time.thread_time()
    act()
    return time.thread_time() - before
