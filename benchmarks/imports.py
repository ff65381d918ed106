"""The time that a web server takes to import a producer, and ours to import its own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from statistics import median
from typing import Any

from benchmarks.repetition import alternate, median_ratio
from benchmarks.rows import Row, Target
from tests.support.processes import REPOSITORY

_MILLISECONDS = 1e3
_OURS = "from dspyq import predict"
_THEIRS = "import celery, redis, pydantic_settings"
_USED = "import celery.app.base, redis, pydantic_settings"
_DOOR = "import dspyq.serve.process.command"
_DOOR_LIMIT_MILLISECONDS = 120
#: What a process has before: a producer that has read its settings.
_BEFORE = {_DOOR: "import dspyq.client.asking, dspyq.config.schema"}
_FORBIDDEN = ("dspy", "litellm")
_CODE = """
import json, sys, time
{before}
started = time.perf_counter()
{statement}
seconds = time.perf_counter() - started
print(json.dumps({{"seconds": seconds, "loaded": [name for name in {forbidden} if name in sys.modules]}}))
"""


def run(*, quick: bool) -> list[Row]:
    """Measure the imports in processes of their own, the interpreter's start left out."""
    rounds = 3 if quick else 15
    blocks = {statement: functools.partial(_import, statement) for statement in (_OURS, _THEIRS, _USED, _DOOR)}
    alternate(1, blocks)  # writes the bytecode and fills the file cache
    seconds = {statement: [each["seconds"] for each in found] for statement, found in alternate(rounds, blocks).items()}
    return [
        _row(seconds, _THEIRS, "celery, redis, pydantic-settings", Target("ratio", "at most", 1.60)),
        _row(seconds, _USED, "the same, Celery's app loaded", None),
        Row(
            "`dspyq serve`", "import, besides a producer's", "ms", median(seconds[_DOOR]) * _MILLISECONDS,
            "celery, redis, pydantic-settings", median(seconds[_THEIRS]) * _MILLISECONDS,
            median_ratio(seconds[_DOOR], seconds[_THEIRS]), Target("value", "at most", _DOOR_LIMIT_MILLISECONDS),
        ),
    ]  # fmt: skip


def _row(seconds: dict[str, list[float]], theirs: str, other: str, target: Target | None) -> Row:
    return Row(
        "`from dspyq import predict`", "import", "ms", median(seconds[_OURS]) * _MILLISECONDS, other,
        median(seconds[theirs]) * _MILLISECONDS, median_ratio(seconds[_OURS], seconds[theirs]), target,
    )  # fmt: skip


def _import(statement: str) -> dict[str, Any]:
    code = _CODE.format(statement=statement, before=_BEFORE.get(statement, ""), forbidden=_FORBIDDEN)
    # As installed: with the bytecode of the first import, which this variable would keep from being written.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, cwd=REPOSITORY, env=env, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(output.stdout)
    if found["loaded"]:
        raise RuntimeError(f"{statement!r} loads {', '.join(found['loaded'])}")
    return found
