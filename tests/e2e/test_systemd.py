"""A worker under systemd with ``Type=notify``: it notifies when it takes jobs, and when it is ending."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deployment import DEPLOY
from tests.support.processes import eventually


@pytest.fixture
def systemd(tmp_path):
    """The socket on which systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        yield listener


def test_a_worker_notifies_systemd_that_it_is_ready_and_that_it_is_ending(systemd, worker):
    running = worker(env={"NOTIFY_SOCKET": systemd.getsockname()})
    assert systemd.recv(100) == b"READY=1"
    running.terminate()
    assert systemd.recv(100) == b"STOPPING=1"
    assert running.wait(30) == 0


def test_a_worker_serves_without_a_listener_at_systemds_socket(worker, predict, tmp_path):
    running = worker(env={"NOTIFY_SOCKET": str(tmp_path / "nowhere")})
    assert predict.delay(question="q").get(timeout=20).answer == "echo:q"
    eventually(lambda: "systemd_not_notified" in running.logs())


def test_the_unit_is_one_that_systemd_reads(tmp_path):
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not here; it comes with systemd")
    unit = tmp_path / "dspyq-worker@.service"
    text = (DEPLOY / "systemd" / unit.name).read_text()
    unit.write_text(text.replace("/opt/dspyq/.venv/bin/celery", str(Path(sys.executable).parent / "celery")))
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False)
    assert not [line for line in done.stderr.splitlines() if unit.name.partition("@")[0] in line], done.stderr
