"""Plain ``celery -A dspyq flower``: it listens to others only where they log in; test_observed.py has its pages."""

import socket
import sys

import pytest

from tests.support.configuration import environment
from tests.support.processes import LocalProcess, free_port


def test_flower_listens_on_loopback_unless_configured_otherwise(settings_file, redis_server):
    port = free_port()
    command = [sys.executable, "-m", "celery", "-A", "dspyq", "flower", f"--port={port}"]
    env = environment(settings_file(), redis_server.url)
    with LocalProcess("flower", command, ready_line="Visit me", env=env) as flower:
        flower.ready()
        socket.create_connection(("127.0.0.1", port), 5).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), 5)


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["--address=0.0.0.0"], {}),
        ([], {"FLOWER_ADDRESS": "::", "FLOWER_BASIC_AUTH": ""}),
        (["--address=0.0.0.0", "--basic_auth=operator:"], {}),
    ],
)
def test_flower_listens_to_others_only_where_they_log_in(settings_file, redis_server, run_celery, arguments, env):
    env = environment(settings_file(), redis_server.url, env)
    done = run_celery("-A", "dspyq", "flower", f"--port={free_port()}", *arguments, env=env)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("dspyq: ")]
    assert "FLOWER_BASIC_AUTH" in line
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
