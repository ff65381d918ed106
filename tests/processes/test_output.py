"""Lines of workers under one parent."""

from __future__ import annotations

import json

import pytest

from dspyq.processes.output import WorkerOutput


def test_in_a_terminal_each_line_begins_with_its_workers_name(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output = WorkerOutput(is_terminal=True, width=9)
    output.release()
    output.write("worker-1", 1, b"begun, ")
    output.write("worker-10", 1, b"other\n")
    output.write("worker-1", 1, b"ended\nlast")
    output.write("worker-1", 1, b"")
    output.report("workers_ready", "workers are ready: 2", workers=2)
    out, err = capfdbinary.readouterr()
    assert out.decode().splitlines() == ["worker-10 | other", "worker-1  | begun, ended", "worker-1  | last"]
    assert err == b"dspyq     | workers are ready: 2\n"


def test_elsewhere_lines_are_as_the_worker_wrote_them(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output = WorkerOutput(is_terminal=False, width=8)
    output.write("worker-1", 2, b'{"event": "one"}\n')
    output.report("workers_ready", "workers are ready: 2", workers=2)
    first, second = capfdbinary.readouterr().err.splitlines()
    assert first == b'{"event": "one"}'
    assert json.loads(second) | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "event": "workers_ready",
        "workers": 2,
    }


def test_until_one_is_ready_the_same_line_of_all_is_printed_once(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output = WorkerOutput(is_terminal=False, width=8)
    for worker in ("worker-1", "worker-2"):
        output.write(worker, 2, f"dspyq: a fault\npid of {worker}\n".encode())
    output.show_failure("worker-2")
    output.write("worker-1", 2, b"dspyq: a fault\n")
    output.write("worker-1", 2, b"dspyq: a fault")  # it was ended before it wrote the line's end
    output.write("worker-1", 2, b"")
    assert capfdbinary.readouterr().err.splitlines() == [b"dspyq: a fault", b"pid of worker-1", b"pid of worker-2"]


def test_once_one_is_ready_the_others_lines_follow(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output = WorkerOutput(is_terminal=False, width=8)
    for worker in ("worker-1", "worker-2"):
        output.write(worker, 1, b"the same\n")
    output.release()
    output.write("worker-2", 1, b"more\n")
    assert capfdbinary.readouterr().out.splitlines() == [b"the same", b"the same", b"more"]
