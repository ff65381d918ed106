"""``dspyq forget`` removes content of a tenant, of a unit and from before a day, and states what it did not reach."""

from __future__ import annotations

import json
import time

import pytest

from dspyq.store.keys import result_key
from tests.sealing.test_rotation import NO_MEMORY
from tests.support.processes import eventually


@pytest.fixture
def forget(dspyq):
    def run(path, *arguments, **options):
        return json.loads(dspyq("forget", *arguments, "--yes", "--json", settings=path, **options).stdout)

    return run


def ask(question, **options):
    from dspyq import predict

    job = predict.apply_async(kwargs={"question": question}, **options)
    assert job.get(timeout=40).answer == f"echo:{question}"
    return job


def test_a_tenant_a_unit_and_the_past_are_forgotten_and_all_else_stays(configure, sealed, worker, client, forget):
    path = sealed(True, {**NO_MEMORY, "encryption": {"index_units": True}})
    configure(path)
    worker(path)
    acme, other = ask("one", tenant="acme"), ask("one", tenant="other")
    ann, both = ask("two", unit="ann"), ask("three", unit="ann")
    assert ask("three", unit="ben").id == both.id
    bob = ask("four", unit="bob")
    assert not [name for name in client.scan_iter("*unit-tasks*") if b"ann" in name]

    told = forget(path, "--tenant", "acme")
    assert (told["answers"], bool(told["key_id"])) == (1, True)
    assert not client.exists(result_key(acme.id))
    assert client.exists(result_key(other.id))
    assert ask("one", tenant="other").id == other.id
    assert ask("one", tenant="acme").id != acme.id

    told = forget(path, "--unit", "ann")
    assert (told["answers"], told["results"]) == (2, 2)
    assert not client.exists(result_key(ann.id), result_key(both.id))
    assert ask("four", unit="bob").id == bob.id
    assert ask("three", unit="ben").id != both.id

    time.sleep(1.1)
    late = ask("five")
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 1))
    told = forget(path, "--before", moment)
    assert told["results"] >= 2
    assert not client.exists(result_key(bob.id))
    assert client.exists(result_key(late.id))
    assert [each for each in told["not_reached"] if "backups" in each]


@pytest.mark.journey
def test_dead_jobs_of_a_tenant_go_and_unfinished_ones_are_counted(configure, sealed, worker, client, forget, endpoint):
    path = sealed(True, NO_MEMORY)
    configure(path)
    from dspyq import predict

    dead = predict.apply_async(kwargs={"question": "dead"}, tenant="acme")
    client.hset(f"dspy:v1:job:{dead.id}", "message", "no message")
    worker(path)
    eventually(lambda: client.zcard("dspy:v1:dead"))
    endpoint.hold()
    predict.apply_async(kwargs={"question": "running"}, tenant="acme")
    endpoint.wait_for_calls(1)
    told = forget(path, "--tenant", "acme")
    assert (told["dead_jobs"], client.zcard("dspy:v1:dead")) == (1, 0)
    assert told["not_reached"][0].startswith("unfinished jobs: 1,")
    endpoint.release()


@pytest.mark.journey
def test_files_of_a_tenants_batch_go_with_it(sealed, worker, dspyq, tmp_path, forget):
    path = sealed(True, NO_MEMORY)
    worker(path)
    folder = tmp_path / "out"
    folder.mkdir()
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "one"}\n')
    for tenant in ("acme", "other"):
        out = str(folder / f"{tenant}.jsonl")
        dspyq("batch", "run", str(rows), "--output", out, "--tenant", tenant, settings=path)
    told = forget(path, "--tenant", "acme", "--files", str(folder))
    assert told["files"] >= 1
    assert [each for each in told["not_reached"] if "acme.jsonl" in each]
    assert {each.name for each in folder.iterdir()} >= {"acme.jsonl", "other.jsonl", "other.jsonl.journal"}
    assert not list(folder.glob("acme.jsonl.*"))


def test_mistakes_are_one_line(sealed, dspyq, tmp_path):
    path = sealed()
    for arguments, text in (
        (("--unit", "ann"), "encryption.index_units"),
        (("--before", "tomorrow"), "--before is a day"),
        (("--before", "2999-01-01"), "in the future"),
        (("--tenant", "acme", "--unit", "ann"), "state one of"),
        (("qa", "--tenant", "acme"), "state one of"),
        (("--unit", "ann", "--files", str(tmp_path)), "journals name no units"),
    ):
        done = dspyq("forget", *arguments, "--yes", settings=path, ok=False)
        assert text in " ".join(done.stderr.split())
    assert "Aborted" in dspyq("forget", "--tenant", "acme", settings=path, ok=False).stderr
