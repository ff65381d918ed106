"""The parent of workers, with other programs in their place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.processes import eventually

#: Runs a parent over programs: the first argument is each one's code, the second how many there are.
RUN = """
import sys
import dspyq.processes.parent
from dspyq.processes.output import WorkerOutput
from dspyq.processes.parent import Parent
from dspyq.processes.worker_process import WorkerProcess

code, number = sys.argv[1], int(sys.argv[2])
command = [sys.executable, "-c", code]
dspyq.processes.parent._COLD_SECONDS = 600.0
workers = [WorkerProcess(f"worker-{each}", command, None, {}) for each in range(1, number + 1)]
sys.exit(Parent(workers, WorkerOutput(is_terminal=True, width=8), 600.0, reloads=True).run())
"""
READY = """
import os, socket, sys, time
def ready():
    address = os.environ["NOTIFY_SOCKET"]
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.sendto(b"READY=1", chr(0) + address[1:] if address[0] == "@" else address)
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def run(code: str, number: int = 1) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RUN, READY + code, str(number)]
        env = {**os.environ, "FOLDER": str(tmp_path)}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_one_that_ends_before_any_was_ready_ends_all_and_is_shown_once(
    run: Callable[..., subprocess.Popen[str]],
) -> None:
    output, _ = run("print('dspyq: a fault'); sys.exit(2)", 3).communicate(timeout=30)
    (shown,) = [line for line in output.splitlines() if "a fault" in line]
    assert shown.endswith(" | dspyq: a fault")
    assert "the workers end" not in output
    assert "workers_ending" not in output


def test_one_that_ends_later_is_started_again_after_longer_and_longer_waits(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    code = "ready(); open(os.environ['FOLDER'] + '/starts', 'a').write('x'); time.sleep(0.2); sys.exit(3)"
    parent = run(code)
    eventually(lambda: (tmp_path / "starts").exists() and len((tmp_path / "starts").read_text()) == 3, 30)
    parent.terminate()
    output, _ = parent.communicate(timeout=30)
    waits = [line.partition("again in ")[2] for line in output.splitlines() if "status 3" in line]
    assert waits[:2] == ["1 s", "2 s"]
    assert parent.returncode == 0


def test_a_third_signal_kills_what_two_did_not_end(run: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    code = (
        "import signal\n"
        "def note(number, _): print('got', number, flush=True)\n"
        "for number in (signal.SIGTERM, signal.SIGQUIT): signal.signal(number, note)\n"
        "ready(); open(os.environ['FOLDER'] + '/up', 'w'); sys.stdin.read()"
    )
    parent = run(code)
    eventually((tmp_path / "up").exists, 30)
    assert parent.stdout is not None
    for seen in ("got 15", "got 3"):
        parent.terminate()
        while seen not in parent.stdout.readline():
            pass
    parent.terminate()
    assert parent.wait(timeout=30) == 0
