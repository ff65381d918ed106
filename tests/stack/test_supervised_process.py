"""A tied process ends with its parent, and only then."""

import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from dspyq.stack.embedded.supervised_process import SupervisedProcess
from tests.support.processes import wait_until

#: Starts a tied process, says its id, and waits to be killed.
PARENT = """
import os, signal, sys, time
from dspyq.stack.embedded.supervised_process import SupervisedProcess
for number in (signal.SIGHUP, signal.SIGINT):  # a run of tests behind nohup ignores them
    signal.signal(number, signal.SIG_DFL)
child = SupervisedProcess(sys.argv[1:], grace_seconds=0.5)
os.write(1, f"{child.pid}\\n".encode())  # at once, for its child writes there too
time.sleep(60)
"""
SLEEP = ["sleep", "60"]
#: Says so when it has begun to ignore SIGTERM.
DEAF = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"]


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(*pids):
    wait_until(lambda: not any(map(is_running, pids)), 60, f"the end of {pids}")


@pytest.fixture
def parent():
    """Start a parent of a tied process; return the parent, its output's lines and the child's id."""
    started = []

    def start(command):
        process = subprocess.Popen([sys.executable, "-c", PARENT, *command], stdout=subprocess.PIPE, text=True)
        started.append(process)
        lines = [process.stdout.readline() for _ in range(2 if command is DEAF else 1)]
        numbers = [line for line in lines if line.strip().isdigit()]
        assert numbers, (lines, process.poll())
        return process, int(numbers[0])

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_child_ends_when_its_parent_does(parent, number):
    process, child = parent(SLEEP)
    assert is_running(child)
    process.send_signal(number)
    process.wait()
    wait_until_gone(child)


def test_a_child_that_ignores_sigterm_is_killed_after_its_parent(parent):
    process, child = parent(DEAF)
    process.kill()
    process.wait()
    wait_until_gone(child)


def test_what_a_child_started_ends_too(parent):
    process, child = parent(["sh", "-c", "sleep 60 & sleep 60; true"])
    family = wait_until(lambda: len(found := psutil.Process(child).children()) == 2 and found, 60, "both children")
    process.kill()
    process.wait()
    wait_until_gone(child, *(each.pid for each in family))


def test_a_child_outlives_the_thread_that_started_it():
    started = []
    thread = threading.Thread(target=lambda: started.append(SupervisedProcess(SLEEP)))
    thread.start()
    thread.join()
    with started[0] as child, pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)


def test_closing_ends_the_child_and_can_be_repeated():
    child = SupervisedProcess(SLEEP)
    child.close()
    assert not is_running(child.pid)
    assert child.poll() == 128 + signal.SIGTERM
    child.close()


def test_closing_is_bounded_where_a_child_ignores_it():
    with SupervisedProcess(DEAF, output=subprocess.PIPE, grace_seconds=0.2) as child:
        assert child.stdout.readline() == b"deaf\n"
    assert child.poll() == 128 + signal.SIGKILL
    assert not is_running(child.pid)


def test_the_exit_status_is_the_childs():
    with SupervisedProcess(["sh", "-c", "exit 7"]) as child:
        assert child.wait(60) == 7
    with SupervisedProcess(SLEEP) as child:
        child.send_signal(signal.SIGKILL)
        assert child.wait(60) == 128 + signal.SIGKILL


def test_a_program_that_cannot_be_started_raises():
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        SupervisedProcess(["no-such-program"])


def test_closing_ends_a_child_whose_supervisor_was_killed():
    with SupervisedProcess(SLEEP) as child:
        os.kill(psutil.Process(child.pid).ppid(), signal.SIGKILL)
    wait_until_gone(child.pid)
