from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.support.endpoint import Endpoint
from tests.support.processes import LocalProcess, wait_until
from tests.support.producer_process import ProducerError

PARENT_AND_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
time.sleep(600)
"""
TEST_RUN = """
import sys, time
from tests.support.processes import LocalProcess
process = LocalProcess("orphan", [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"],
                       ready_line="up")
process.ready()
process.stop()
print("orphan", process.pid, process.log_file, flush=True)
time.sleep(600)
"""


def is_alive(process_id: int) -> bool:
    return psutil.pid_exists(process_id) and psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE


def python(code: str, ready_line: str) -> LocalProcess:
    process = LocalProcess("python", [sys.executable, "-c", code], ready_line=ready_line)
    process.ready()
    return process


def test_what_a_killed_test_run_started_is_killed_too_even_if_frozen() -> None:
    run = python(TEST_RUN, "orphan")
    _, orphan, log_file = run.logs().split()
    assert is_alive(int(orphan))

    os.kill(run.pid, signal.SIGKILL)  # the run alone: its process is in a group of its own

    wait_until(lambda: not is_alive(int(orphan)), 60, "the orphan to be killed")
    run.close()
    os.unlink(log_file)  # noqa: PTH108 - a killed run cannot remove it


@pytest.mark.parametrize("end", [LocalProcess.kill, LocalProcess.terminate, LocalProcess.close])
def test_children_end_with_their_process(end: Callable[[LocalProcess], Any]) -> None:
    process = python(PARENT_AND_CHILD, "child")
    child = int(process.logs().split()[1])

    end(process)

    wait_until(lambda: not is_alive(child), 60, "the child to be killed")
    process.close()


def test_a_frozen_process_stands_still_and_ends_all_the_same() -> None:
    process = python("import time\nwhile True: print('tick', flush=True); time.sleep(0.01)", "tick")

    process.stop()
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, 60, "the process to freeze")
    length = len(process.logs())
    assert len(process.logs()) == length

    process.cont()
    wait_until(lambda: len(process.logs()) > length, 60, "the process to go on")
    process.stop()
    process.close()
    assert process.status == "exited"


def test_a_process_that_ends_before_its_line_is_reported_with_its_output() -> None:
    with (
        LocalProcess("python", [sys.executable, "-c", "print('why'); exit(3)"], ready_line="ready") as process,
        pytest.raises(RuntimeError, match=r"ended with 3 before 'ready':\nwhy"),
    ):
        process.ready()


def test_a_restart_waits_for_the_line_anew() -> None:
    with python("import time; print('ready', flush=True); time.sleep(600)", "ready") as process:
        first = process.pid

        process.restart(force=True)

        assert process.is_running
        assert process.pid != first
        assert process.logs() == "ready\n"


def test_an_endpoint_ends_with_its_context() -> None:
    with Endpoint() as endpoint:
        process_id = endpoint.process.pid
        endpoint.hold()
    assert not is_alive(process_id)


def test_producer_code_gets_its_arguments_and_settings(run_producer: Callable[..., Any]) -> None:
    def describe(question: str) -> dict[str, str]:
        import os

        return {"question": question, "redis": os.environ["DSPYQ_REDIS_URL"][:8]}

    assert run_producer(describe, question="日本") == {"question": "日本", "redis": "redis://"}
    assert run_producer("return 2 * number", number=21) == 42


def test_what_producer_code_raises_is_raised(run_producer: Callable[..., Any]) -> None:
    with pytest.raises(ProducerError, match="ValueError: no") as error:
        run_producer("raise ValueError('no')")
    assert error.value.type_name == "ValueError"
