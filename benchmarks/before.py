"""Compare this checkout with an earlier one: processor time of hits, misses, bulk asking and a new prediction.

A new prediction has two rows: what it takes in the worker, and what in the server's process of Redis, for all that the
worker and the producer ask of it, which sends each by ``delay()`` and reads its answer.

``python -m benchmarks.before EARLIER``, where EARLIER is another checkout of this repository (``git worktree add``).
Both run in turns, each turn in processes of its own with servers of its own; the table has the medians of all turns,
their spread, and the median of the ratios turn by turn. Processor time is compared, not time: it depends less on what
else the machine does.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.repetition import alternate, median_ratio

_HERE = Path(__file__).parents[1]
_WARM_UP = 300
_HITS, _MISSES, _ROWS, _PREDICTIONS = 3_000, 1_000, 4_000, 1_000

#: Run in either checkout, with what both have.
_ASK = """
import time
try:
    from dspyq import predict
except ImportError:  # before 0.2
    from producer import predict
def cpu(count, call):
    started = time.process_time()
    for number in range(count):
        call(number)
    return (time.process_time() - started) / count * 1e6
answer = predict.delay(question="the same").get(timeout=60)
time.sleep(1)  # L1 is used once its listener is connected
for number in range(warm_up):
    predict.delay(question="the same").get()
hit = cpu(hits, lambda _: predict.delay(question="the same").get())
if level == "redis":
    return {"L2 hit": hit}
for number in range(warm_up):
    predict.delay(question=f"warm {number}")
miss = cpu(misses, lambda number: predict.delay(question=f"miss {number}"))
predict.many([{"question": f"warm row {number}"} for number in range(warm_up)])
new = [{"question": f"row {number}"} for number in range(rows)]
many = cpu(1, lambda _: predict.many(new)) / rows
return {"L1 hit": hit, "miss, delay()": miss, "many(), a row": many}
"""
_ASK_AND_GET = """
try:
    from dspyq import predict
except ImportError:  # before 0.2
    from producer import predict
handles = [predict.delay(question=f"{label} {number}") for number in range(predictions)]
return [handle.get(timeout=120).answer for handle in handles][-1]
"""
_TURN = """
import json
from benchmarks.contenders import DSPYQ
from benchmarks.harness import Servers, cpu_seconds
from tests.support.producer_process import Producer
def run(code, arguments, settings=None):
    producer = Producer(code, arguments, servers.environment(settings))
    try:
        return producer.result(300)
    finally:
        producer.close()
def ask(level, settings):
    sizes = dict(level=level, warm_up={warm_up}, hits={hits}, misses={misses}, rows={rows})
    return run({ask!r}, sizes, settings)
def redis_seconds():
    used = servers.redis.client().info("cpu")  # to the microsecond, unlike /proc
    return used["used_cpu_sys"] + used["used_cpu_user"]
with Servers() as servers:
    with servers.worker(DSPYQ) as worker:
        servers.wait_for_results(servers.ask(DSPYQ, 500, "warm"))
        before = cpu_seconds(worker.pid)
        servers.wait_for_results(servers.ask(DSPYQ, {predictions}, "measured"))
        figures = {{"worker, a prediction": (cpu_seconds(worker.pid) - before) / {predictions} * 1e6}}
        run({ask_and_get!r}, dict(label="warm", predictions=100))
        before = redis_seconds()
        run({ask_and_get!r}, dict(label="measured", predictions={predictions}))
        figures["Redis, a new prediction"] = (redis_seconds() - before) / {predictions} * 1e6
        servers.run("asking:ask_one", question="the same")
    figures |= ask("memory", {{}}) | ask("redis", {{"DSPYQ_CACHE__MEMORY_ENTRIES": "0"}})
print(json.dumps(figures))
"""


def main() -> int:
    """Measure both checkouts in turns and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.before", description=__doc__)
    parser.add_argument("earlier", type=Path, help="a checkout of an earlier commit")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    options = parser.parse_args()
    if not (options.earlier / "benchmarks" / "harness.py").is_file():
        parser.error(f"{options.earlier} is no checkout of this repository")
    blocks = {"before": options.earlier.resolve(), "after": _HERE}
    found = alternate(options.turns, {name: functools.partial(_turn, tree) for name, tree in blocks.items()})
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        Console().print(_table(found))
    return 0


def _turn(tree: Path) -> dict[str, float]:
    counts = {"warm_up": _WARM_UP, "hits": _HITS, "misses": _MISSES, "rows": _ROWS, "predictions": _PREDICTIONS}
    code = _TURN.format(ask=_ASK, ask_and_get=_ASK_AND_GET, **counts)
    env = {name: value for name, value in os.environ.items() if not name.startswith("DSPYQ_")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, env=env | {"PYTHONPATH": str(tree)}, check=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _table(found: dict[str, list[dict[str, float]]]) -> Table:
    turns = len(found["before"])
    table = Table(title=f"Processor time, µs; medians of {turns} interleaved turns [least to most]")
    for heading in ("", "before", "after", "after / before"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name in found["before"][0]:
        before, after = ([turn[name] for turn in found[side]] for side in ("before", "after"))
        ratios = sorted(mine / other for mine, other in zip(after, before, strict=True))
        table.add_row(
            name, _spread(before), _spread(after),
            f"{median_ratio(after, before):.2f} x [{ratios[0]:.2f} to {ratios[-1]:.2f}]".replace("[", r"\["),
        )  # fmt: skip
    return table


def _spread(values: list[float]) -> str:
    return rf"{median(values):.1f} \[{min(values):.1f} to {max(values):.1f}]"


if __name__ == "__main__":
    sys.exit(main())
