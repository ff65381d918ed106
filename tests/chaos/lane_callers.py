"""Interactive callers beside a lane that holds money: they ask two workers by turns, one with a lane, one without.

``python -m tests.chaos.lane_callers`` is one such caller: it asks each line of its input, and prints how many seconds
each answer took.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from tests.chaos.stage import Stage
from tests.support.configuration import environment
from tests.support.processes import REPOSITORY
from tests.support.redis_server import RedisServer
from tests.support.worker import Worker

#: Questions to each before any is measured: imports and connections.
WARM_QUESTIONS = 10
_LONGEST_SECONDS = 60.0
_PERCENTILE = 95


class Caller:
    """A process that asks questions one after the other.

    Args:
        env: Its whole environment.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.lane_callers"],
            env={**env, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, question: str) -> float:
        """Ask, and return how many seconds the answer took."""
        asked, answered = self._process.stdin, self._process.stdout
        if asked is None or answered is None:
            raise RuntimeError("a caller has pipes")
        asked.write(f"{question}\n")
        asked.flush()
        return float(answered.readline())

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def callers_of_two(stage: Stage) -> Iterator[tuple[Caller, Caller]]:
    """Start another Redis and worker beside a stage's; yield a caller of those, and one of the stage."""
    with ExitStack() as started:
        other = started.enter_context(RedisServer())
        alone = environment(stage.settings_path, other.url)
        worker = started.enter_context(Worker(alone))
        worker.ready()
        pair = Caller(alone), Caller(stage.environment())
        for caller in pair:
            started.callback(caller.close)
        for number in range(WARM_QUESTIONS):
            for caller in pair:
                caller.ask(f"first {number}")
        yield pair


def compare(pair: tuple[Caller, Caller], questions: int, when: str) -> dict[str, str]:
    """Ask both by turns; return the 95th percentile of each, and their ratio, as one figure."""
    alone, beside = pair
    seconds: tuple[list[float], list[float]] = [], []
    for number in range(questions):
        for which in (0, 1) if number % 2 else (1, 0):
            seconds[which].append((alone, beside)[which].ask(f"{when} {number}"))
    one, other = (1000 * _percentile(of, _PERCENTILE) for of in seconds)
    medians = _percentile(seconds[1], 50) / _percentile(seconds[0], 50)
    figure = f"p95 {other:.0f} ms, of a worker without a lane {one:.0f} ms: {other / one:.2f}×; medians {medians:.2f}×"
    return {f"a caller {when}": figure}


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def main() -> None:
    """Ask each line, and print the seconds of its answer."""
    from dspyq import predict

    for line in sys.stdin:
        began = time.monotonic()
        predict.apply_async(kwargs={"question": line.strip()}, program="qa").get(timeout=_LONGEST_SECONDS)
        print(time.monotonic() - began, flush=True)


if __name__ == "__main__":
    main()
