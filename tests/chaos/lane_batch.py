"""A batch in the provider's lane on a stage: its command, its rows, and faults of its money."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.chaos.stage import Stage
from tests.chaos.stored import what_is_left
from tests.support.configuration import merged
from tests.support.processes import REPOSITORY, wait_until

#: The configuration of lanes, with a program of two calls that follow each other.
SETTINGS: dict[str, Any] = {
    "models": {"control": {"batch": "openai", "batch_discount": 0.5, "batch_linger_seconds": 0.5}},
    "lane": {"first_poll_seconds": 0.2, "settle_seconds": 2},
    "programs": {
        "twice": {
            "signature": "question -> answer",
            "class": "tests.support.dspy_programs:TwoSteps",
            "lanes": ["provider"],
            "variants": {"control": {"model": "control"}},
        }
    },
}
CALLS_PER_ROW = {"qa": 1, "twice": 2}
_LONGEST_SECONDS = 300.0
_LATE_SECONDS = 60.0


def settings_with(**model: Any) -> dict[str, Any]:
    """Return the configuration of lanes, with changes of its model's table."""
    return merged(SETTINGS, {"models": {"control": model}})


@dataclass
class RowCounts:
    """The rows of a batch that ended.

    Attributes:
        lost: How many have no right answer.
        doubled: How many lines of OUT are of a row that has one.
        remarks: What is wrong besides.
    """

    lost: int
    doubled: int
    remarks: list[str]


class LaneBatch:
    """A batch's own process.

    Args:
        stage: Where it runs.
        rows: How many questions it has.
        program: ``qa`` or ``twice``.
        name: Names its files and questions; another batch on the stage has another.
        module: What runs it, in place of ``dspyq``.
        env: Its environment besides.

    Attributes:
        rows: How many questions it has.
    """

    def __init__(
        self,
        stage: Stage,
        rows: int,
        program: str = "twice",
        name: str = "row",
        *,
        module: str = "dspyq",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.rows = rows
        self._program = program
        self._name = name
        self._out: Path = stage.folder / f"{name}.out.jsonl"
        source = stage.folder / f"{name}.jsonl"
        source.write_text("".join(json.dumps({"question": self._question(number)}) + "\n" for number in range(rows)))
        command = [sys.executable, "-m", module, "batch", "run", str(source), "--program", program, "--json"]
        command += ["--lane", "provider", "--output", str(self._out)]
        environment = stage.environment(env) | {"PYTHONPATH": str(REPOSITORY)}
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def is_running(self) -> bool:
        """True until its process has ended."""
        return self._process.poll() is None

    @property
    def calls(self) -> int:
        """The number of calls that its rows need."""
        return CALLS_PER_ROW[self._program] * self.rows

    def end(self, timeout_seconds: float = _LONGEST_SECONDS) -> RowCounts:
        """Wait for its end, count its rows, and compare its statement with them.

        Raises:
            subprocess.TimeoutExpired: If it does not end.
        """
        text, _ = self._process.communicate(timeout=timeout_seconds)
        outcome = json.loads(text.splitlines()[-1])["outcome"]
        lines = [json.loads(line) for line in self._out.read_text().splitlines()]
        answers = Counter(line["outputs"]["answer"] for line in lines if line["status"] == "ok")
        remarks = []
        if outcome["state"] != "finished" or outcome["reconciliation"]["difference_nano_usd"]:
            remarks.append(f"it ended so: {outcome}")
        wanted = {self._answer(number) for number in range(self.rows)}
        return RowCounts(len(wanted - answers.keys()), len(lines) - len(answers), remarks)

    def _question(self, number: int) -> str:
        return f"{self._name} {number}"

    def _answer(self, number: int) -> str:
        question = self._question(number)
        return f"echo:{question}" if self._program == "qa" else f"echo:{question} first echo:{question} second"


def money_faults(stage: Stage, *, has_others: bool = False) -> list[str]:
    """Return remarks on a lane that does not end, calls billed twice, and accounts that are not the bill.

    Args:
        stage: The stage.
        has_others: Whether others than batches made live calls: then the bill is that of the lane alone.
    """
    remarks = []
    with stage.redis.client() as client:

        def left() -> list[str]:
            return [key for key in client.keys("dspy:v1:lane*") if not key.endswith(":past")]

        with suppress(TimeoutError):
            wait_until(lambda: not left(), _LATE_SECONDS, "the lane's end")
        if left():
            remarks.append(f"left of the lane: {left()}")
        accounts = [key for key in client.keys("dspy:v1:budget:batch:*") if key.count(":") == 4]
        amounts = [client.hmget(account, "settled", "held") for account in accounts]
    settled, held = (sum(int(each or 0) for each in column) for column in zip(*amounts, strict=True))
    counts, billed = stage.endpoint.batches.counts(), stage.endpoint.batches.bill()
    bill = billed.batch_nano_usd if has_others else billed.nano_usd
    if (settled, held) != (bill, 0):
        remarks.append(f"the accounts have {settled} settled and {held} held, and the bill is {bill}")
    if counts.billed_twice or counts.double_names:
        remarks.append(f"billed twice: {counts.billed_twice}; batches of one name: {counts.double_names}")
    if counts.files_left:
        remarks.append(f"{counts.files_left} files left at the provider: {stage.endpoint.batches.files()}")
    return remarks + what_is_left(stage.redis, 10.0)
