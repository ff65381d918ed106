"""Rows of an experiment: computed answers with their contents, kept where its table states ``keep_rows``."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import orjson

from dspyq.core.runtime import Runtime, current
from dspyq.core.tolerated import tolerate
from dspyq.experiments.exposure import Exposure, read_exposure
from dspyq.experiments.state import ExperimentState
from dspyq.experiments.token import question_name
from dspyq.store import content
from dspyq.store.clients import jobs_client, redis_errors
from dspyq.store.keys import experiment_kept_key, experiment_rows_key
from dspyq.store.spines import on_each_spine

#: Larger rows are not kept: the stream is bounded in rows.
MOST_ROW_BYTES = 65_536
_ROWS_AT_ONCE = 500


class JudgedSum(NamedTuple):
    """Scores or judgements of one name: their number, and their sum in millionths of its range."""

    number: int
    total: int


class KeptRow(NamedTuple):
    """A computed answer.

    Attributes:
        task_id: The task that computed it.
        at: When, in seconds since 1970 by Redis's clock.
        exposure: The call that asked first.
        question: The question's name, the same in every arm.
        fingerprint: The variant's.
        inputs: The inputs in JSON.
        outputs: The outputs in JSON.
        served: Calls that it was served to.
        scores: Its scores by name.
        judgements: Its callers' judgements by name.
    """

    task_id: str
    at: float
    exposure: Exposure
    question: str
    fingerprint: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    served: int
    scores: dict[str, JudgedSum]
    judgements: dict[str, JudgedSum]


def write_row(
    task_id: str, fingerprint: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], tenant: str = ""
) -> bytes:
    """Return an answer's row as the script that stores the answer keeps it; empty for one that is too large."""
    try:
        canonical = orjson.dumps(inputs, option=orjson.OPT_SORT_KEYS)
        written = orjson.dumps([inputs, outputs])
    except TypeError:  # inputs that another program sent under our task's name
        return b""
    if len(written) > MOST_ROW_BYTES:
        return b""
    head = f"{question_name(canonical)} {fingerprint} ".encode()
    return head + content.encode(content.Kind.ROW, task_id, written, tenant=tenant)


def read_rows(state: ExperimentState, since: float = 0.0) -> Iterator[KeptRow]:
    """Yield the rows that an experiment keeps, the oldest first.

    Args:
        state: The experiment.
        since: Rows from then on, in seconds since 1970.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    # A part of a runtime is active for each page alone: rows of several spines come by turns.
    runtimes = on_each_spine(current)
    pages = [_rows_of_spine(runtime, state, since) for runtime in runtimes]
    yield from pages[0] if len(pages) == 1 else heapq.merge(*pages, key=lambda row: row.at)


def _rows_of_spine(runtime: Runtime, state: ExperimentState, since: float) -> Iterator[KeptRow]:
    with runtime.active():
        rows, kept = experiment_rows_key(state.program, state.epoch), experiment_kept_key(state.program, state.epoch)
    start = f"{since * 1000:.0f}"
    while True:
        with redis_errors("read the experiment's rows"), runtime.active():
            client = jobs_client()
            entries = cast("list[Any]", client.xrange(rows, start, count=_ROWS_AT_ONCE))
            ids = [entry[1].get(b"id", b"").decode() for entry in entries]
            names = [f"{kind} {task_id}" for task_id in ids for kind in "nsf"]
            found = cast("list[bytes | None]", client.hmget(kept, names)) if names else []
        for number, (identity, fields) in enumerate(entries):
            row = _read(state.program, identity, fields, found[3 * number : 3 * number + 3])
            if row is not None:
                yield row
        if len(entries) < _ROWS_AT_ONCE:
            return
        start = f"({entries[-1][0].decode()}"


def _read(
    program: str, identity: bytes, fields: Mapping[bytes, bytes], came_of_it: list[bytes | None]
) -> KeptRow | None:
    try:
        task_id = fields[b"id"].decode()
        question, fingerprint, stored = fields[b"row"].split(b" ", 2)
        inputs, outputs = orjson.loads(content.decode(content.Kind.ROW, task_id, stored))
        exposure = read_exposure(program, fields[b"exposure"].decode())
        served, scores, judgements = came_of_it
        if exposure is None or not isinstance(inputs, dict) or not isinstance(outputs, dict):
            raise ValueError("another form")  # noqa: TRY301 - as any other row that cannot be read
        at = int(identity.split(b"-")[0]) / 1000
        judged = _judged(scores), _judged(judgements)
        return KeptRow(
            task_id, at, exposure, question.decode(), fingerprint.decode(), inputs, outputs, int(served or 0), *judged
        )
    except (ValueError, KeyError, TypeError) as error:  # among them content that cannot be read
        tolerate("experiment_row", error)
        return None


def _judged(written: bytes | None) -> dict[str, JudgedSum]:
    words = (written or b"").decode().split()
    groups = zip(words[::3], words[1::3], words[2::3], strict=True)
    return {name: JudgedSum(int(number), int(total)) for name, number, total in groups}
