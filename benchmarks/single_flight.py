"""Three hundred callers in three processes ask one question at once."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.contenders import DSPYQ
from benchmarks.harness import Servers
from benchmarks.rows import Row, Target

_PROCESSES = 3
_CALLERS = 300
_MODEL_SECONDS = 1.0
_QUESTION = "What is asked by everybody?"


def run(*, quick: bool) -> list[Row]:
    """Count the model calls; there is nothing to make smaller for a quick run."""
    del quick
    with Servers() as servers, servers.worker(DSPYQ):
        servers.endpoint.script(latency_seconds=_MODEL_SECONDS)
        with ExitStack() as started:
            producers = [
                servers.start("callers:ask", question=_QUESTION, callers=_CALLERS // _PROCESSES)
                for _ in range(_PROCESSES)
            ]
            for producer in producers:
                started.callback(producer.close)
            answers = [answer for producer in producers for answer in producer.result()]
        calls = servers.endpoint.calls()
    if len(answers) != _CALLERS or len(set(answers)) != 1:
        raise RuntimeError(f"{_CALLERS} callers got {len(answers)} answers, {len(set(answers))} different ones")
    return [
        Row(
            "one question", f"model calls, {_CALLERS} callers", "", calls,
            "every caller for itself", _CALLERS, target=Target("value", "at most", 1),
            note=f"the callers are threads of {_PROCESSES} processes",
        )
    ]  # fmt: skip
