"""A run of every feature with a canary in every input and answer, and where it can be read afterwards."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import redis

from tests.support.processes import wait_until

CANARY = "canary-of-a-user"
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{24,}={0,2}")


def is_legible(stored: bytes) -> bool:
    """Return True if the canary stands in these bytes, as it is, in capitals or in base64."""
    texts = [stored]
    for run in _BASE64.findall(stored):
        try:
            texts.append(base64.b64decode(run + b"=" * (-len(run) % 4)))
        except binascii.Error:
            continue
    return any(CANARY.encode() in text.lower() for text in texts)


def everything_in(client: redis.Redis) -> Iterator[tuple[str, bytes]]:
    """Yield each key of Redis with all its bytes."""
    for name in client.scan_iter(count=1000):
        kind = client.type(name).decode()
        read: dict[str, Any] = {
            "string": lambda key: [client.get(key)],
            "hash": lambda key: [part for pair in client.hgetall(key).items() for part in pair],
            "list": lambda key: client.lrange(key, 0, -1),
            "set": client.smembers,
            "zset": lambda key: client.zrange(key, 0, -1),
            "stream": lambda key: [
                part for _, fields in client.xrange(key) for pair in fields.items() for part in pair
            ],
        }
        if kind in read:  # it may have ended since
            yield name.decode(), b"\n".join([name, *(part or b"" for part in read[kind](name))])


def legible_keys(client: redis.Redis) -> set[str]:
    """Return the kinds of keys, by their names without ids, in which the canary can be read."""
    return {
        re.sub(r"[0-9a-f]{8}[0-9a-f-]{20,}", "ID", name) for name, stored in everything_in(client) if is_legible(stored)
    }


def legible_commands(commands: list[Any]) -> set[str]:
    """Return the names of commands in which the canary can be read: what MONITOR shows, publications too."""
    return {command.name for command in commands if is_legible(command.text.encode())}


def ask_in_every_way(canary: str) -> dict[str, Any]:
    """Answered, read again, by the hundred, failed, linked, in a chord, streamed and set aside; what callers got."""
    from celery import chord
    from celery.exceptions import NotRegistered

    from dspyq import predict
    from dspyq.celery_app.application import app
    from dspyq.errors import DspyqError
    from tests.support.user_tasks import collect, shout

    def told(job):
        try:
            found = job.get(timeout=60)
            return getattr(found, "answer", found)
        except (DspyqError, NotRegistered) as error:
            return type(error).__name__

    def ask(what):
        return predict.delay(question=f"{canary} {what}")

    streamed = predict.apply_async(kwargs={"question": f"{canary} stream"}, stream=True)
    return {
        "answered": told(ask("one")),
        "again": told(ask("one")),
        "many": [told(job) for job in predict.many({"question": f"{canary} {n}"} for n in (1, 2, 3))],
        "many again": [told(job) for job in predict.many({"question": f"{canary} {n}"} for n in (1, 2, 3))],
        "of a unit": told(
            predict.apply_async(kwargs={"question": f"{canary} unit"}, unit=f"{canary} ann", tenant="acme")
        ),
        "streamed": "".join(chunk.text for chunk in streamed.stream(timeout=60) if chunk.kind == "delta"),
        "failed": told(ask("refused")),
        "chained": (predict.s(question=f"{canary} chain") | shout.s()).apply_async().get(timeout=60),
        "chord": chord([predict.s(question=f"{canary} {n}") for n in ("a", "b")])(collect.s()).get(timeout=60),
        "dead": told(app.send_task("nobody.knows", kwargs={"question": canary}, queue="dspyq")),
    }


def run_batch(run: Any, folder: Path, endpoint: Any, settings: Path, env: dict[str, str]) -> dict[str, bool]:
    """Run a batch from a pipe whose first answer comes last; whether its files show the canary meanwhile."""
    pipe, out = folder / "rows.pipe", folder / "out.jsonl"
    os.mkfifo(pipe)
    rows = "".join(json.dumps({"question": f"{CANARY} row {what}"}) + "\n" for what in ("held", "two", "three"))
    endpoint.hold(containing="row held")
    writer = Thread(target=pipe.write_text, args=(rows,))
    runner = Thread(
        target=run,
        args=("batch", "run", str(pipe), "--output", str(out), "--ordered", "--format", "jsonl"),
        kwargs={"settings": settings, "env": env},
    )
    writer.start()
    runner.start()
    journal = out.with_name("out.jsonl.journal")
    wait_until(lambda: _lines_that_wait(journal) == 2, 60, "two lines that wait for their turn")
    kept = {path.name: is_legible(path.read_bytes()) for path in folder.glob("out.jsonl.*")}
    endpoint.release()
    for thread in (writer, runner):
        thread.join(60)
    answers = [json.loads(line)["outputs"]["answer"] for line in out.read_text().splitlines()]
    assert answers == [f"echo:{CANARY} row {what}" for what in ("held", "two", "three")]
    return kept


def _lines_that_wait(journal: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM lines").fetchone()[0])
    except sqlite3.Error:
        return 0
