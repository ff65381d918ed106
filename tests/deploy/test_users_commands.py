"""Every command of ``dspyq --help``, on one stack, as the user that docs/security.md assigns it: Redis refuses none.

The rows run in their order. A word in braces stands for what an earlier row printed, or for what a step made.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from typing import Any

import pytest

from dspyq.sealing.keyring import new_key_line
from tests.cli.test_every_command import commands
from tests.support.configuration import environment, merged
from tests.support.door import Door
from tests.support.experiments import with_experiment
from tests.support.processes import free_port, wait_until
from tests.support.redis_users import PREFIX, env_of, load_users, refusals


@dataclass(frozen=True)
class Row:
    """Commands that each of these users runs.

    Attributes:
        users: Their names.
        command: Its arguments.
        code: Its exit code.
        keeps: Names under which members of its JSON are kept: ``{"key": "id"}``.
        does_without: Commands and keys that Redis refuses it, and that it does without.
        is_after_removal: Whether the configuration that lacks the program ``night`` counts.
    """

    users: str
    command: str
    code: int = 0
    keeps: dict[str, str] = field(default_factory=dict)
    does_without: tuple[str, ...] = ()
    is_after_removal: bool = False


#: Commands that are no row, each with the reason, and the test that shows the rights of what they start.
NO_ROWS = {
    "worker": "it is the stack's own: test_every_command_runs_with_the_rights_of_its_user",
    "serve": "it is the stack's own: tests/deploy/test_users_door.py",
    "demo": "it starts a Redis of its own, with one password: tests/stack/test_demo.py",
    "up": "it starts a stack of its own: tests/deploy/test_users_stack.py",
    "keys hash": "it reads a key from standard input, and no Redis: tests/cli/test_key_commands.py",
}
WITHOUT_A_WORKER = (
    Row("worker operator", "check"),
    Row("producer door", "check", does_without=("scan", "info")),
    Row("batch", "check", does_without=("info",)),
    Row("watcher", "check", does_without=("shop:dspy:v1:job:",)),
    Row("producer", "predict question=early --program night --timeout 0.2", code=1),
    Row("operator", "queues list"),
    Row("watcher operator", "spines"),
    Row("operator", "check", is_after_removal=True),
    Row("operator", "queues drain night.control", is_after_removal=True),
    Row("operator", "queues forget night.control", is_after_removal=True),
    Row("producer", "predict question=one --program qa --timeout 0.2", code=1),
    Row("producer", "predict question=other --program qa --tenant acme --timeout 0.2", code=1),
    Row("operator", "tenants limit acme --daily 5 --rate 100"),
    Row("producer", "predict question=third --program qa --tenant acme --timeout 0.2", code=1),
    "let_two_jobs_die",
    Row("operator", "dead list --json"),
    Row("operator", "dead show {one} --content"),
    Row("operator", "dead replay {one}"),
    Row("operator", "dead drop {other}"),
    Row("operator", "experiment start qa --reason begun"),
    Row("operator", "budget set --daily 10"),
    Row("operator", "budget set --daily 5 --program qa"),
)
ANSWERED = (
    "ask_for_a_token",
    Row("producer", "predict 'question=of ann' --program qa --tenant acme --unit ann --json"),
    Row("producer", "feedback {token} thumbs=1"),
    Row("operator", "feedback {token} thumbs=0"),
    Row("producer batch operator", "cache warm rows.jsonl --program qa"),
    Row("batch", "batch run rows.jsonl --program qa --output out.jsonl --tenant acme --name first"),
    Row(
        "batch",
        "batch run rows.jsonl --program qa --output pairs --paired --budget-share 0.5 --rate-share 0.5 --max-usd 1",
    ),
    Row("batch operator", "batch run rows.jsonl --program qa --output new.jsonl --dry-run"),
    Row("batch", "batch retry out.jsonl --output retried.jsonl"),
    Row("batch", "batch report out.jsonl --html report.html"),
    Row("batch", "batch schedule nightly"),
    Row("batch watcher operator", "batch list"),
    Row("batch operator", "batch schedule"),
    "hold",
    Row(
        "batch",
        "batch run held.jsonl --program qa --output held.out --detach --json",
        keeps={"held": "id", "pid": "pid"},
    ),
    Row("batch", "batch pause {held}"),
    Row("batch", "batch resume {held}"),
    Row("operator", "batch pause {held}"),
    Row("operator", "batch resume {held}"),
    Row("batch watcher operator", "batch status {held}"),
    Row("batch watcher operator", "costs --batch {held}"),
    Row("batch", "batch cancel {held}"),
    "release",
    *(
        Row("watcher operator", line)
        for line in (
            *("variants", "costs", "costs --by tenant", "budget show", "breaker show", "tenants list", "cache stats"),
            *("experiment log qa", "health --port {port}"),
        )
    ),
    Row("watcher", "experiment status qa"),
    Row("watcher", "experiment report qa --json"),
    Row("operator", "experiment status"),
    Row("operator", "experiment report qa --html report.html"),
)
LANES = (
    "hold_shipments",
    Row("batch", "batch run rows.jsonl --program night --lane provider --output night.dry --dry-run"),
    Row(
        "batch",
        "batch run rows.jsonl --program night --lane provider --output night.out --detach --json",
        keeps={"lane": "id", "lane_pid": "pid"},
    ),
    "wait_for_a_shipment",
    Row("operator", "lane show control --past 5"),
    Row("operator", "lane flush control"),
    Row("operator", "lane salvage control"),
    Row("operator", "lane cancel {shipment}"),
    "wait_for_the_lane",
)
OPERATED = (
    *(
        Row("operator", line)
        for line in (
            *("experiment export qa --out rows.out --with-feedback", "experiment ramp qa 0.5", "experiment pause qa"),
            *("experiment resume qa", "experiment kill qa challenger --forget", "experiment stop qa"),
            "experiment simulate qa --calls-per-day 100 --baseline 0.5",
        )
    ),
    Row("operator", "keys create --tenant acme --name web --json", keeps={"key_id": "id"}),
    *(
        Row("operator", line)
        for line in (
            *("keys list", "keys show {key_id}", "keys edit {key_id} --rate 5", "keys rotate {key_id} --output new"),
            *("keys log", "keys revoke {key_id}"),
            *("tenants show acme", "budget show --tenant acme", "budget reset --daily --yes"),
            *("breaker open control", "breaker close control", "breaker reset --all"),
            *("cache invalidate 'question=of ann' --program qa --tenant acme", "cache clear --program night"),
            *("encryption status", "encryption rotate", "encryption rotate --check", "encryption new-key"),
            *("forget --unit ann --yes", "forget --before 2026-01-01 --yes", "forget --tenant acme --yes"),
            "guards forget",
            *("tenants forget acme --books --yes", "queues list", "dead list", "users", "version", "init project"),
        )
    ),
)  # fmt: skip
EVERY_ROW = tuple(each for each in (*WITHOUT_A_WORKER, *ANSWERED, *LANES, *OPERATED) if isinstance(each, Row))
NIGHT = {
    "models": {"control": {"batch": "openai", "batch_linger_seconds": 0.5, "batch_discount": 0.5}},
    "lane": {"first_poll_seconds": 0.2, "settle_seconds": 2},
    "programs": {
        "night": {
            "signature": "question -> answer",
            "lanes": ["provider"],
            "variants": {"control": {"model": "control"}},
        }
    },
}


def test_every_command_has_a_row_or_a_reason_for_none():
    rows = {" ".join(path) for path, _ in commands() for row in EVERY_ROW if path == tuple(words(row))[: len(path)]}
    assert rows | set(NO_ROWS) == {" ".join(path) for path, _ in commands()}
    assert not rows & set(NO_ROWS)


def words(row):
    return shlex.split(row.command)


class Stack:
    """A server with users, a worker and the door, and the steps between rows; ``facts`` is what rows refer to."""

    def __init__(self, server, dspyq, start_producer, endpoint, settings, removed):
        self.facts: dict[str, Any] = {"port": free_port()}
        self.server = server
        self.endpoint = endpoint
        self._dspyq = dspyq
        self._start_producer = start_producer
        self._settings = settings
        self._removed = removed

    def run(self, steps):
        """Run rows and steps in their order, and return what was refused or ended with another exit code."""
        faults = []
        for step in steps:
            if isinstance(step, str):
                getattr(self, step)()
                continue
            faults += [fault for user in step.users.split() if (fault := self._run_row(user, step))]
        return faults

    def command(self, user, *arguments, settings=None):
        settings = settings or self._settings
        return self._dspyq(*arguments, env=env_of(self.server, user), settings=settings, ok=None)

    def _run_row(self, user, row):
        arguments = [word.format(**self.facts) for word in words(row)]
        done = self.command(user, *arguments, settings=self._removed if row.is_after_removal else None)
        refused = refusals(self.server)
        self.server.cli("ACL", "LOG", "RESET")
        if done.returncode != row.code or {each[-1] for each in refused} != set(row.does_without):
            return f"{user}: {row.command}: {done.returncode}\n{refused}\n{done.stdout}{done.stderr}"
        if row.keeps:
            found = json.loads(done.stdout)
            self.facts |= {name: found[member] for name, member in row.keeps.items()}
        return None

    def let_two_jobs_die(self):
        client = self.server.client()
        for name in ("one", "other"):
            queue = self.server.keys(f"{PREFIX}dspy:v1:queue:qa.*")[0]
            job = client.zpopmin(queue)[0][0]
            client.hset(f"{PREFIX}dspy:v1:job:{job}", "reason", "a test")
            client.zadd(f"{PREFIX}dspy:v1:dead", {job: float(client.time()[0])})
            self.facts[name] = job

    def ask_for_a_token(self):
        def ask():
            from dspyq import predict

            jobs = [
                predict.apply_async(kwargs={"question": "a"}, program="qa", unit=f"unit {unit}") for unit in range(4)
            ]
            return [job.get(timeout=40).metadata.exposure for job in jobs]

        tokens = self._start_producer(ask, self._settings, env=env_of(self.server, "producer")).result(60)
        self.facts["token"] = next(filter(None, tokens))

    def hold(self):
        self.endpoint.hold(containing="held")

    def release(self):
        self.endpoint.release()
        self._wait_for_batch(self.facts["held"])

    def hold_shipments(self):
        self.endpoint.batches.script(is_manual=True, times=1)

    def wait_for_a_shipment(self):
        def shipment():
            (lane,) = json.loads(self.command("operator", "lane", "show", "control", "--json").stdout)
            return lane["shipped_lines"] and lane["shipments"][0]["name"]

        self.facts["shipment"] = wait_until(shipment, 60, "a shipment")

    def wait_for_the_lane(self):
        self._wait_for_batch(self.facts["lane"])

    def _wait_for_batch(self, batch_id):
        def is_so():
            found = json.loads(self.command("watcher", "batch", "status", batch_id, "--json").stdout)
            return found["state"] in {"cancelled", "finished"}

        wait_until(is_so, 60, f"the batch {batch_id} to end")


@pytest.fixture
def stack(fresh_redis_server, dspyq, start_producer, endpoint, settings_file, tmp_path, monkeypatch):
    server = fresh_redis_server()
    load_users(server)
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(f"{new_key_line()}\n{new_key_line('index')}\n")
    for name in ("rows", "held"):
        lines = [json.dumps({"question": f"{name} {number}"}) for number in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    changes = merged(with_experiment(feedback={"thumbs": {"low": 0, "high": 1}}, keep_rows=100), NIGHT)
    changes = merged(
        changes,
        {
            "encryption": {"keys_file": str(keys), "index_units": True},
            "programs": {"qa": {"encrypt": True}},
            "batches": {
                "nightly": {
                    "program": "qa",
                    "input": "rows.jsonl",
                    "output": "nightly-{date}.jsonl",
                    "schedule": "0 3 * * *",
                }
            },
        },
    )
    settings = settings_file(changes, challenger=0.5)
    removed = settings_file(merged(changes, {"programs": {"night": None}}), challenger=0.5)
    monkeypatch.chdir(tmp_path)  # of commands too
    return Stack(server, dspyq, start_producer, endpoint, settings, removed), settings


@pytest.mark.journey
def test_every_command_runs_with_the_rights_of_its_user(stack, worker, nursery):
    del nursery
    stack, settings = stack
    faults = stack.run(WITHOUT_A_WORKER)
    worker(settings, env=env_of(stack.server, "worker", DSPYQ_METRICS__PORT=str(stack.facts["port"])))
    with Door(environment(settings, None, env_of(stack.server, "door", DSPYQ_SERVE__DRAIN_SECONDS="0"))):
        faults += stack.run((*ANSWERED, *LANES, *OPERATED))
    assert not faults, "\n".join(faults)
