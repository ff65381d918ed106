"""Keys come and go while a fleet works: nothing is lost, and what an old key sealed is still served."""

from __future__ import annotations

import json
import time
from threading import Event, Thread

import pytest

from dspyq.sealing.keyring import key_id_of, new_key_line
from dspyq.store.keys import result_key
from tests.support.monitor import Monitor
from tests.support.processes import eventually, wait_until

NO_MEMORY = {"cache": {"memory_entries": 0}}


def write(path, *lines):
    """Replace a file of keys at once, as an operator does."""
    new = path.with_name("keys.new")
    new.touch(0o600)
    new.write_text("\n".join(lines) + "\n")
    new.replace(path)


def test_a_job_of_a_key_that_no_worker_has_waits_and_runs_once_the_key_is_there(
    configure, sealed, worker, keys_file, settings_file, tmp_path, client, dspyq
):
    producer = sealed(True, NO_MEMORY)
    configure(producer)
    from dspyq import predict

    old, index = keys_file.read_text().splitlines()
    theirs = tmp_path / "theirs"
    theirs.touch(0o600)
    other = new_key_line()
    theirs.write_text(f"{other}\n{index}\n")
    stated = {"encryption": {"keys_file": str(theirs)}, "programs": {"qa": {"encrypt": True}}}
    running = worker(settings_file({**NO_MEMORY, **stated, "metrics": {"port": 0}}))
    job = predict.delay(question="one")
    monitor = Monitor.of(running)
    key_id = old.split()[1]
    eventually(lambda: monitor.metrics().get(f'dspy_unknown_key{{key_id="{key_id}"}}') == 1.0)
    check = monitor.health()["checks"]["encryption"]
    assert (check["status"], check["unknown"], check["seals"]) == ("degraded", [key_id], other.split()[1])
    assert monitor.metrics()['dspy_content_refused_total{cause="unknown_key"}'] >= 1
    status = json.loads(dspyq("encryption", "status", "--json", settings=producer).stdout)
    assert [key["envelopes"] for key in status["keys"]] == [1]
    assert not client.zcard("dspy:v1:dead")
    write(theirs, other, old, index)
    write(keys_file, old, other, index)
    assert job.get(timeout=40).answer == "echo:one"
    assert key_id_of(client.get(result_key(job.id))).decode() == other.split()[1]


def test_an_old_key_is_needed_until_no_envelope_names_it(configure, sealed, worker, keys_file, client, dspyq):
    path = sealed(True, NO_MEMORY)
    configure(path)
    worker(path)
    from dspyq import predict

    job = predict.delay(question="one")
    job.get(timeout=40)
    old, index = keys_file.read_text().splitlines()
    new = new_key_line()
    write(keys_file, new, old, index)
    told = json.loads(dspyq("encryption", "rotate", "--check", "--json", settings=path, ok=False).stdout)
    assert told == {"seals": new.split()[1], "removable": [], "needed": {old.split()[1]: 1}}
    assert predict.delay(question="one").get(timeout=40).metadata.cached
    client.delete(result_key(job.id))
    told = json.loads(dspyq("encryption", "rotate", "--check", "--json", settings=path).stdout)
    assert (told["removable"], told["needed"]) == ([old.split()[1]], {})


@pytest.mark.long
def test_a_rotation_under_load_costs_no_error_no_answer_and_no_hit(configure, sealed, worker, keys_file, endpoint):
    path = sealed(True, NO_MEMORY)
    configure(path)
    for _ in range(2):
        worker(path)
    from dspyq import predict

    old, index = keys_file.read_text().splitlines()
    warm = [{"question": f"warm {number}"} for number in range(50)]
    assert len([job.get(timeout=60) for job in predict.many(warm)]) == 50
    ended, errors, fresh = Event(), [], []

    def load():
        number = 0
        while not ended.is_set():
            number += 1
            try:
                fresh.append(predict.delay(question=f"new {number}").get(timeout=60).answer == f"echo:new {number}")
                asked = [predict.delay(**row).get(timeout=60) for row in warm[number % 50 :][:3]]
                errors.extend(found for found in asked if not found.metadata.cached)
            except Exception as error:  # noqa: BLE001 - any is a failure of the test
                errors.append(error)

    loads = [Thread(target=load) for _ in range(2)]
    for thread in loads:
        thread.start()
    new = new_key_line()
    for lines in ((old, new, index), (new, old, index)):
        write(keys_file, *lines)
        seen = len(fresh)
        time.sleep(2.5)  # every process has looked at the file
        wait_until(lambda seen=seen: len(fresh) > seen + 20, 60, "predictions under these keys")
    ended.set()
    for thread in loads:
        thread.join(60)
    assert errors == []
    assert all(fresh)
    assert endpoint.calls() <= 50 + len(fresh)
