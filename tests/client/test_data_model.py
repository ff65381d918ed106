"""docs/data-model.md: the table of keys, against the source and against what a run leaves in Redis."""

from __future__ import annotations

import re
from typing import Any

from tests.support.processes import REPOSITORY

PREFIX = "dspy:v1:"
#: Celery's and kombu's own, which the page names below its table.
OTHERS = ("celery-task-meta-", "_kombu.binding")


def documented() -> list[str]:
    page = (REPOSITORY / "docs" / "data-model.md").read_text()
    return re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)


def is_documented(key: str) -> bool:
    patterns = [re.sub(r"<[^>]+>", ".+", re.escape(name)) for name in documented()]
    return any(re.fullmatch(pattern, key) for pattern in patterns)


def test_every_key_that_the_source_builds_is_in_the_table() -> None:
    built = set()
    for path in (REPOSITORY / "dspyq").rglob("*"):
        if path.suffix == ".py":
            built |= set(re.findall(r'\bkey\(f?"([^"*]+)"', path.read_text()))
        elif path.suffix == ".lua":
            built |= set(re.findall(r"PREFIX \.\. '([^']+)'", path.read_text()))
    assert len(built) > 20
    names = {re.sub(r"\{[^}]*\}", "x", name) for name in built}
    missing = {name for name in names if not is_documented(name + "x" * name.endswith(":") + "")}
    missing -= {name for name in missing if is_documented(f"{name}:x") or is_documented(f"{name}x:x")}
    assert not missing


def test_every_key_that_a_run_leaves_is_in_the_table(predict: Any, shared_worker: Any, redis_server: Any) -> None:
    del shared_worker
    job = predict.delay(question="q")
    job.get(timeout=30)
    predict.apply_async(kwargs={"question": "q"}, refresh=True).get(timeout=30)
    [each.get(timeout=30) for each in predict.many([{"question": f"q{number}"} for number in range(3)])]
    left = [key for key in redis_server.client().keys("*") if not key.startswith(OTHERS)]
    queues = {"qa.control", "dspyq"}
    strange = {key for key in left if key not in queues and not is_documented(key.removeprefix(PREFIX))}
    assert left
    assert not strange
