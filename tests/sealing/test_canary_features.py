"""Features beside predictions leave no canary: scores, pairs, shadows, rows, chats, pages, schedules, dead chords.

``test_canary.py`` has predictions of every fate and batches, ``test_lane.py`` lanes, ``tests/store/test_content.py``
replies that a later run reads.
"""

from __future__ import annotations

import json
import stat
import time
from typing import Any

import pytest

from dspyq.core.names import BATCH_QUEUE, TICK_NAME
from tests.sealing.canary import CANARY, is_legible, legible_commands, legible_keys
from tests.support.configuration import environment, merged
from tests.support.door import Door
from tests.support.experiments import with_experiment
from tests.support.monitor import Monitor
from tests.support.processes import eventually, wait_until

ENV = {"DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]', "DSPYQ_CACHE__MEMORY_ENTRIES": "0"}
HOOKS = "tests.support.user_scorers"
_DAY_SECONDS = 86_400
#: Files that are a user's own, whose content is to be read.
OWN_FILES = {"in.jsonl", "out.jsonl", "rows.jsonl", "rows.held-out.jsonl"}


def experiment() -> dict[str, Any]:
    """An experiment that keeps rows, scores answers, and has shadow runs whose answers are compared in pairs."""
    shadow = {"variants": ["challenger"], "share": 1.0, "daily_usd": 10.0}
    shadow["pair_scorers"] = {"prefers_brief": f"{HOOKS}:prefers_brief"}
    scores = {"brief": {"scorer": f"{HOOKS}:is_brief", "low": 0, "high": 2}}
    judged = {"thumbs": {"low": 0, "high": 1}}
    changes = with_experiment(keep_rows=100, feedback=judged, scores=scores, shadow=shadow)
    changes["programs"]["qa"]["scorers"] = [f"{HOOKS}:is_brief"]
    return merged(changes, {"serve": {"authentication": "none"}, "metrics": {"port": 0}})


def ask_with_links(canary: str) -> dict[str, Any]:
    """Predictions with links of a user's own, in groups, and in chords of which a member or the body cannot run."""
    from celery import chord, group

    from dspyq import predict
    from dspyq.celery_app.application import app
    from tests.support.user_tasks import collect, make_question, shout

    def outcome(job: Any) -> Any:
        try:
            return job.get(timeout=60, follow_parents=False)  # the chord's own fate, whenever its members' are stored
        except Exception as error:  # noqa: BLE001 - its type is what is asked for
            return type(error).__name__

    def ask(what: str) -> Any:
        return predict.s(question=f"{canary} {what}")

    linked = predict.apply_async(kwargs={"question": f"{canary} link"}, link=shout.s(), link_error=shout.s())
    dead_body = app.signature("nobody.knows", queue="dspyq")
    return {
        "linked": linked.get(timeout=60).answer,
        "group": [each.answer for each in group(ask("one"), ask("two")).apply_async().get(timeout=60)],
        "behind an own task": outcome((make_question.s(canary) | predict.s() | shout.s()).apply_async()),
        "chord with a refused member": outcome(chord([ask("three"), ask("refused")])(collect.s())),
        "chord with a dead member": outcome(chord([ask("four"), dead_body.clone(args=[canary])])(collect.s())),
        "chord with a dead body": outcome(chord([ask("five"), ask("six")])(dead_body)),
    }


ASKED = {
    "linked": f"echo:{CANARY} link",
    "group": [f"echo:{CANARY} one", f"echo:{CANARY} two"],
    "behind an own task": f"echo:What of {CANARY}?".upper(),
    "chord with a refused member": "ChordError",
    "chord with a dead member": "ChordError",
    "chord with a dead body": "NotRegistered",
}


def use_the_door(door: Door) -> None:
    """A chat, a chat by stream, events of a prediction, an idempotent request twice, and feedback with a comment."""
    for stream in (False, True):
        said = [{"role": "user", "content": f"{CANARY} chat {stream}"}]
        with door.api.stream(
            "POST", "/v1/chat/completions", json={"model": "qa", "messages": said, "stream": stream}
        ) as reply:
            assert CANARY in "".join(json.loads(f'"{piece}"') for piece in pieces(reply.read().decode()))
    with door.api.stream(
        "POST",
        "/v1/programs/qa/predictions",
        json={"inputs": {"question": f"{CANARY} events"}, "unit": f"{CANARY} ben"},
        headers={"accept": "text/event-stream"},
    ) as reply:
        assert "event: " in reply.read().decode()
    once = {"Idempotency-Key": "order-2"}
    asked, again = (door.ask(f"{CANARY} judged", headers=once).json()["id"] for _ in range(2))
    assert asked == again
    body = {"name": "thumbs", "value": 1, "comment": f"{CANARY} comment"}
    assert door.api.post(f"/v1/predictions/{asked}/feedback", json=body).status_code < 300
    assert CANARY in door.api.get(f"/v1/predictions/{asked}/feedback").text
    refused = door.ask(f"{CANARY} refused")
    assert refused.status_code >= 400


def pieces(text: str) -> list[str]:
    """The contents of a chat's reply, as JSON has them between their quotation marks."""
    return [part.split('"')[0] for part in text.split('"content":"')[1:]]


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "control"])
def test_experiments_doors_pages_and_dead_chords_leave_no_canary_and_without_encryption_a_look_finds_them(
    is_sealed, worker, endpoint, redis_server, run_producer, dspyq, sealed, settings_file, tmp_path, client
):
    endpoint.script(containing="refused", status=400, body=json.dumps({"error": {"message": f"{CANARY} failed"}}))
    path = sealed(True, experiment(), challenger=0.5) if is_sealed else settings_file(experiment(), challenger=0.5)
    dspyq("experiment", "start", "qa", settings=path)
    running = worker(path, env=ENV)
    folder = tmp_path / "files"
    folder.mkdir()
    rows = [{"question": f"{CANARY} row {number}", "document": f"{CANARY} document"} for number in range(3)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = str(folder / "out.jsonl")
    with Door(environment(path, redis_server.url, ENV)) as door, redis_server.monitored() as commands:
        assert run_producer(ask_with_links, path, env=ENV, canary=CANARY, timeout_seconds=150) == ASKED
        use_the_door(door)
        paired = ("--paired", "--score", "--cluster", "document", "--ordered")
        told = [dspyq("batch", "run", str(folder / "in.jsonl"), "--output", out, *paired, settings=path, env=ENV)]
        wait_until(lambda: redis_server.keys("dspy:v1:experiment-rows:*"), 60, "rows that are kept")
        commands_of_people = (
            ("batch", "report", out, "--html", str(folder / "batch.html")),
            ("experiment", "report", "qa", "--html", str(folder / "experiment.html")),
            ("experiment", "status", "qa"),
            ("dead", "list"),
            ("batch", "list"),
        )
        told += [dspyq(*command, settings=path) for command in commands_of_people]
        dspyq("experiment", "export", "qa", "--split", "0.5", "--out", str(folder / "rows.jsonl"), settings=path)
        eventually(lambda: len(redis_server.keys("dspy:v1:experiment-unscored:*")) == 0)
        watched = [running.logs(), str(Monitor.of(running).metrics()), door.logs()]
    found, shown = legible_keys(client), legible_commands(commands)
    files = {file.name: is_legible(file.read_bytes()) for file in folder.iterdir()}
    assert [name for name, is_read in files.items() if is_read and name not in OWN_FILES] == []
    assert files["out.jsonl"]
    assert files["rows.jsonl"] or files["rows.held-out.jsonl"]
    assert not any(stat.S_IMODE(file.stat().st_mode) & 0o077 for file in folder.iterdir() if "rows" in file.name)
    assert not [text for text in [*watched, *(done.stdout + done.stderr for done in told)] if CANARY in text]
    if is_sealed:
        assert (found, shown) == (set(), set())
        return
    kinds = {name.partition(":ID")[0] for name in found}
    assert {"celery-task-meta-ID", "dspy:v1:job", "dspy:v1:judgements"} <= kinds
    assert [name for name in found if name.startswith("dspy:v1:experiment-rows:")]
    assert "EVALSHA" in shown


@pytest.mark.long
def test_a_scheduled_batch_leaves_no_canary_in_redis_its_journal_or_its_log(
    configure, sealed, worker, redis_server, client, tmp_path
):
    hour = (time.gmtime().tm_hour + 12) % 24  # half a day from now: it is due once, for yesterday
    place = {"input": str(tmp_path / "rows-{date}.jsonl"), "output": str(tmp_path / "answers-{date}.jsonl")}
    path = sealed(True, {"batches": {"nightly": place | {"schedule": f"0 {hour} * * *"}}})
    configure(path)
    from dspyq.celery_app.application import app

    last = (client.time()[0] - hour * 3600) // _DAY_SECONDS * _DAY_SECONDS + hour * 3600
    date = time.strftime("%Y-%m-%d", time.gmtime(last))
    client.set("dspy:v1:batch-schedule-seen:nightly", last - _DAY_SECONDS + 1)
    source = tmp_path / f"rows-{date}.jsonl"
    source.write_text("".join(json.dumps({"question": f"{CANARY} {number}"}) + "\n" for number in range(3)))
    running = worker(path)
    state = f"dspy:v1:batch-scheduled:nightly:{date}T{hour:02}:00"
    with redis_server.monitored() as commands:
        app.send_task(TICK_NAME, queue=BATCH_QUEUE)
        wait_until(lambda: client.hget(state, "state") == b"done", 90, "the batch of last night")
    answers = tmp_path / f"answers-{date}.jsonl"
    assert answers.read_text().count(CANARY) == 3
    others = [file for file in tmp_path.rglob("*") if file.is_file() and file not in {source, answers}]
    assert {file.name for file in others} >= {f"{answers.name}.journal", f"{answers.name}.log"}
    assert not [file for file in others if is_legible(file.read_bytes())]
    assert CANARY not in running.logs()
    assert (legible_keys(client), legible_commands(commands)) == (set(), set())
