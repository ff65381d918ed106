"""``dspyq batch run … --detach``: it returns once the batch has begun, or prints the reason why it could not."""

import contextlib
import json
import os
import signal

import pytest

from tests.support.processes import wait_until


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"question": f"detached {number}"}) + "\n" for number in range(4)))
    return path


@pytest.fixture
def status(dspyq):
    return lambda batch_id: json.loads(dspyq("batch", "status", batch_id, "--json").stdout)


@pytest.mark.journey
def test_a_batch_in_the_background_outlives_its_command_and_refuses_a_second_one(
    shared_worker, endpoint, dspyq, rows, status, tmp_path
):
    del shared_worker  # it answers
    output = tmp_path / "answers.jsonl"
    command = ("batch", "run", str(rows), "--output", str(output), "--detach")
    endpoint.hold()
    begun = json.loads(dspyq(*command, "--json").stdout)
    try:
        assert begun["log"] == f"{output}.log"
        assert os.getsid(begun["pid"]) == begun["pid"]  # a terminal that closes does not end it
        assert status(begun["id"])["state"] == "running"
        refused = dspyq(*command, ok=False)
        assert refused.returncode == 2
        (line,) = refused.stderr.strip().splitlines()
        assert f"another process works on this output (process {begun['pid']}" in line
        endpoint.release()
        wait_until(lambda: status(begun["id"])["state"] == "finished", 60, "the batch to finish")
        assert len(output.read_text().splitlines()) == 4
        again = dspyq(*command).stdout  # nothing is left to do, and that is no error
        assert f"dspyq batch status {begun['id']}" in again
    finally:
        _end(begun["pid"])


def test_a_batch_that_cannot_begin_prints_the_reason_as_in_the_foreground(dspyq, tmp_path, redis_server):
    del redis_server
    command = ("batch", "run", str(tmp_path / "nowhere.jsonl"), "--output", str(tmp_path / "answers.jsonl"))
    told = [dspyq(*command, *more, ok=False) for more in ((), ("--detach",))]
    assert [each.returncode for each in told] == [2, 2]
    assert told[0].stderr.strip() == told[1].stderr.strip()


def _end(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
