"""``dspyq up``, end to end: it starts the Procfile's processes on its own Redis and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dspyq.stack import procfile
from tests.support.configuration import API_KEY, API_KEY_VARIABLE
from tests.support.processes import REPOSITORY, wait_until

SLOW_TO_END = """
import signal, sys, time

def end(*_):
    time.sleep(1)
    sys.exit("ended in its own time")

signal.signal(signal.SIGTERM, end)
print("started")
time.sleep(60)
"""


class Up:
    """A running ``dspyq up`` in a folder."""

    def __init__(self, folder, settings):
        self.log = folder / "up.log"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DSPYQ_")}
        variables = {"DSPYQ_CONFIG": str(settings), API_KEY_VARIABLE: API_KEY, "PYTHONUNBUFFERED": "1"}
        # Where the tests run in a shell's background, Ctrl-C is ignored, and what they start would inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dspyq", "up"], env=inherited | variables, cwd=folder, stdout=log, stderr=log
            )
        signal.signal(signal.SIGINT, before)

    def said(self, text):
        return text in self.log.read_text()

    def wait_until_said(self, text):
        wait_until(lambda: self.said(text) or self.process.poll() is not None, 120, self.log.read_text)
        assert self.said(text), self.log.read_text()

    def family(self):
        return psutil.Process(self.process.pid).children(recursive=True)


def is_alive(process):
    """Return True if it runs; without a reaping init, an ended process stays as a zombie."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def up(tmp_path, settings_file):
    started = []

    def start(lines=None):
        if lines:
            (tmp_path / "Procfile").write_text(lines)
        started.append(Up(tmp_path, settings_file()))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


@pytest.mark.journey
def test_the_stack_answers_and_ends_whole_on_sigterm(up, tmp_path):
    running = up()
    running.wait_until_said("Ask from another terminal")
    shown = running.log.read_text()
    assert 'DSPYQ_REDIS_URL="$(cat .dspyq/redis.url)"' in shown
    url = (tmp_path / ".dspyq" / "redis.url").read_text()
    assert url.partition("@")[0].rpartition(":")[2] not in shown
    for path in (tmp_path / ".dspyq", *(tmp_path / ".dspyq").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    asked = subprocess.run(
        [sys.executable, "-m", "dspyq", "predict", "question=Is it up?"],
        env={name: value for name, value in os.environ.items() if not name.startswith("DSPYQ_")}
        | {"DSPYQ_CONFIG": str(next(tmp_path.glob("*.toml"))), "DSPYQ_REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "echo:Is it up?" in asked.stdout, asked.stderr
    family = running.family()
    assert any("flower" in each.cmdline() for each in family)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 128 + signal.SIGTERM
    assert not any(map(is_alive, family))
    assert running.said("worker: Warm shutdown"), running.log.read_text()


def test_nothing_is_left_where_it_is_killed(up):
    running = up("first: sleep 60\nsecond: sleep 60\n")
    wait_until(lambda: sum(each.name() == "sleep" for each in running.family()) == 2, 60, "both processes")
    family = running.family()
    assert any("valkey-server" in each.name() for each in family)
    running.process.kill()
    wait_until(lambda: not any(map(is_alive, family)), 60, lambda: str(family))


def test_a_process_that_ends_is_named_and_ends_the_others(up):
    running = up("steady: sleep 60\nbrief: echo $((20 + 3)) lines left; exit 3\n")
    assert running.process.wait(60) == 1
    assert running.said("brief  | 23 lines left")
    assert running.said("dspyq: brief ended by itself with status 3")


def test_a_process_gets_its_grace_to_end_on_sigterm(up, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW_TO_END)
    running = up("slow: python slow.py\n")
    running.wait_until_said("slow | started")
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(60)
    assert running.said("slow | ended in its own time"), running.log.read_text()


def test_another_ctrl_c_ends_at_once(up):
    running = up("deaf: trap '' TERM; echo started; while :; do sleep 0.1; done\n")
    running.wait_until_said("deaf | started")
    family = running.family()
    running.process.send_signal(signal.SIGINT)
    running.wait_until_said("deaf may finish what it runs")
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 0
    assert running.said("Everything has ended")
    assert not any(map(is_alive, family))


@pytest.mark.journey
def test_two_in_one_folder_are_refused(up):
    first = up("first: sleep 60\n")
    first.wait_until_said("✓ redis")
    second = up()
    assert second.process.wait(20) == 1
    assert second.said("another dspyq up runs in")


def test_the_repositorys_procfile_runs_what_runs_without_one_and_more_workers(monkeypatch, tmp_path):
    monkeypatch.chdir(REPOSITORY)
    in_repository = procfile.read_procfile()
    monkeypatch.chdir(tmp_path)
    without_one = procfile.read_procfile()
    assert without_one == procfile.DEFAULT_PROCESSES
    application = {name: command.replace("-A dspyq", "-A workers") for name, command in without_one.items()}
    assert in_repository == application | {"worker": "dspyq worker -A workers"}  # not one, but one a processor
    Path("Procfile").write_text("worker celery -A dspyq worker\n")
    with pytest.raises(procfile.ConfigurationError, match="has no line of the form"):
        procfile.read_procfile()
