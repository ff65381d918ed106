"""``dspyq worker`` with real workers, as an operator starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.configuration import default_document, environment, merged, write_settings
from tests.support.endpoint import Endpoint
from tests.support.processes import LocalProcess, eventually, wait_until
from tests.support.redis_server import RedisServer

START_SECONDS = 90.0
#: Of the parent: what the standard library takes, and what it holds of its workers.
MOST_MEBIBYTES = 25
COMMAND = [sys.executable, "-m", "dspyq", "worker"]


class Fleet(LocalProcess):
    """A parent and its workers."""

    def __init__(self, env: dict[str, str], *arguments: str) -> None:
        command = [*COMMAND, "--threads=2", "--without-mingle", *arguments]
        super().__init__("fleet", command, ready_line='"workers_ready"', env=env)

    def ready(self, timeout: float = START_SECONDS) -> bool:
        return super().ready(timeout)

    @property
    def worker_pids(self) -> list[int]:
        children = psutil.Process(self.pid).children()
        return sorted(child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE)

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [line for line in self.logs().splitlines() if line.startswith("{")]
        return [entry for line in lines if (entry := json.loads(line))["event"] == name]

    def read(self, path: str) -> tuple[int, str]:
        (entry,) = self.events("pages_served")
        try:
            with urllib.request.urlopen(entry["url"] + path, timeout=60) as reply:  # noqa: S310 - its own page
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


CHANGES: dict[str, Any] = {"metrics": {"port": 0}, "delivery": {"shutdown_grace_seconds": 20}}


def start_fleet(path: Path, redis_server: RedisServer) -> Fleet:
    env = environment(path, redis_server.url, {"LITELLM_LOCAL_MODEL_COST_MAP": "true"})
    return Fleet(env, "--processes=2")


def end_fleet(fleet: Fleet) -> None:
    pids = fleet.worker_pids if fleet.is_running else []
    fleet.kill()
    for pid in pids:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
    fleet.close()


@pytest.fixture
def start(
    settings_file: Callable[..., Path], redis_server: RedisServer, endpoint: Endpoint
) -> Iterator[Callable[..., Fleet]]:
    """Start a fleet of two of the test's own: ``start(changes={...})``."""
    del endpoint  # must outlive it
    fleets: list[Fleet] = []

    def start(changes: dict[str, Any]) -> Fleet:
        fleets.append(start_fleet(settings_file(CHANGES | changes), redis_server))
        return fleets[-1]

    yield start
    for fleet in fleets:
        end_fleet(fleet)


@pytest.fixture(scope="module")
def module_fleets() -> Iterator[list[Fleet]]:
    """The fleet that tests which follow each other share: each start of two workers takes seconds."""
    fleets: list[Fleet] = []
    yield fleets
    for fleet in fleets:
        end_fleet(fleet)


@pytest.fixture
def fleet(
    module_fleets: list[Fleet],
    session_endpoint: Endpoint,
    redis_server: RedisServer,
    endpoint: Endpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Fleet:
    """A fleet of two that takes jobs, and may have had jobs before."""
    del endpoint  # reset
    if not (module_fleets and module_fleets[-1].is_running):
        path = tmp_path_factory.mktemp("fleet") / "dspyq.toml"
        write_settings(path, merged(default_document(session_endpoint.url), CHANGES))
        module_fleets.append(start_fleet(path, redis_server))
        module_fleets[-1].ready()
    fleet = module_fleets[-1]
    wait_until(lambda: fleet.read("/readyz")[0] == 200, START_SECONDS, "both workers to take jobs")
    return fleet


@pytest.fixture
def ask(predict: Any) -> Callable[[int], list[Any]]:
    return lambda count: [predict.delay(question=f"q{number}") for number in range(count)]


def test_workers_answer_under_one_page_of_metrics_and_one_of_health(
    fleet: Fleet, ask: Callable[[int], list[Any]], endpoint: Endpoint
) -> None:
    endpoint.hold()
    jobs = ask(4)
    endpoint.wait_for_calls(4)  # of two threads in each of two workers, which have had no others: this test is first
    endpoint.release()
    assert [job.get(timeout=30).answer for job in jobs] == [f"echo:q{number}" for number in range(4)]

    status, text = fleet.read("/metrics")
    assert status == 200
    for worker in ("worker-1", "worker-2"):
        assert f'dspy_worker_up{{worker="{worker}"}} 1' in text
        assert re.search(rf'^dspy_predictions_total{{worker="{worker}",.*status="success".*}} 2.0$', text, re.MULTILINE)
    assert text.count("# TYPE dspy_predictions_total ") == 1
    status, text = fleet.read("/health")
    assert (status, json.loads(text)["status"]) == (200, "healthy")
    assert set(json.loads(text)["workers"]) == {"worker-1", "worker-2"}
    assert fleet.read("/readyz") == (200, "ready\n")
    assert fleet.read("/livez") == (200, "alive\n")
    assert psutil.Process(fleet.pid).memory_info().rss / 2**20 <= MOST_MEBIBYTES


def test_a_worker_that_is_killed_is_started_again_and_its_jobs_are_answered(
    fleet: Fleet, ask: Callable[[int], list[Any]], endpoint: Endpoint
) -> None:
    endpoint.hold()
    jobs = ask(4)
    endpoint.wait_for_calls(4)
    victim, other = fleet.worker_pids
    os.kill(victim, signal.SIGKILL)

    def degraded() -> dict[str, Any] | None:
        report: dict[str, Any] = json.loads(fleet.read("/health")[1])
        return report if report["status"] == "degraded" else None

    report = wait_until(degraded, 30, "the page to show it")
    assert report["checks"]["redis"]["status"] == "degraded", "one of two has not answered"
    assert fleet.read("/readyz")[0] == 503
    endpoint.release()
    assert [job.get(timeout=60).answer for job in jobs] == [f"echo:q{number}" for number in range(4)]
    (entry,) = fleet.events("worker_ended")
    assert entry["status"] == -signal.SIGKILL
    wait_until(lambda: fleet.read("/readyz")[0] == 200, START_SECONDS, "the worker to take jobs again")
    assert other in fleet.worker_pids
    assert f'dspy_worker_restarts_total{{worker="{entry["worker"]}"}} 1' in fleet.read("/metrics")[1]


@pytest.mark.journey
def test_sighup_starts_one_worker_after_another_again(fleet: Fleet) -> None:
    before, ready = set(fleet.worker_pids), len(fleet.events("workers_ready"))
    ended = fleet.events("worker_ended")
    os.kill(fleet.pid, signal.SIGHUP)

    def up() -> list[str]:
        return re.findall(r"^dspy_worker_up.* 1$", fleet.read("/metrics")[1], re.MULTILINE)

    def is_replaced() -> bool:
        assert up() or up(), "one always answers; on a busy machine perhaps later than the page waits"
        return not before & set(fleet.worker_pids) and len(fleet.events("workers_ready")) == ready + 2

    wait_until(is_replaced, 2 * START_SECONDS, "both to be started again")
    assert fleet.events("worker_ended") == ended


def test_sigterm_lets_running_jobs_end(fleet: Fleet, ask: Callable[[int], list[Any]], endpoint: Endpoint) -> None:
    endpoint.hold()
    jobs = ask(4)
    endpoint.wait_for_calls(4)
    os.kill(fleet.pid, signal.SIGTERM)
    eventually(lambda: len(fleet.events("shutdown_begun")) == 2)
    endpoint.release()
    assert fleet.wait(60) == 0
    assert [job.get(timeout=30).answer for job in jobs] == [f"echo:q{number}" for number in range(4)]
    assert endpoint.calls() == 4


@pytest.mark.journey
def test_a_second_sigterm_waits_for_no_job(
    start: Callable[..., Fleet], ask: Callable[[int], list[Any]], endpoint: Endpoint
) -> None:
    fleet = start({"delivery": {"shutdown_grace_seconds": 600}})
    fleet.ready()
    endpoint.hold()
    ask(2)
    endpoint.wait_for_calls(2)
    os.kill(fleet.pid, signal.SIGTERM)
    eventually(lambda: len(fleet.events("shutdown_begun")) == 2)
    os.kill(fleet.pid, signal.SIGTERM)
    assert fleet.wait(60) == 0


@pytest.mark.journey
def test_workers_end_with_a_parent_that_is_killed(start: Callable[..., Fleet]) -> None:
    fleet = start({"metrics": None})
    fleet.ready()
    workers = [psutil.Process(pid) for pid in fleet.worker_pids]
    fleet.kill()
    assert psutil.wait_procs(workers, timeout=30)[1] == []


def refused(env: dict[str, str], *arguments: str) -> list[str]:
    """Run it, and return its lines where it ends by itself with 1."""
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=env, timeout=START_SECONDS, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return [line for line in (done.stdout + done.stderr).splitlines() if "dspyq: " in line]


@pytest.mark.journey
def test_a_configuration_that_no_worker_can_serve_is_shown_once(
    settings_file: Callable[..., Path], redis_server: RedisServer
) -> None:
    keyless = {"models": {"control": {"model": "openai/gpt-4o", "api_key_env": "NOT_SET_ANYWHERE"}}}
    env = environment(settings_file(keyless), redis_server.url)
    (line,) = refused(env, "--processes=2")
    assert "NOT_SET_ANYWHERE" in line
    (line,) = refused(environment(settings_file(toml="[workers]\nconcurrency = 0"), redis_server.url))
    assert "workers.concurrency" in line
    (line,) = refused(env, "--processes=0")
    assert "--processes" in line


def test_a_folder_without_a_configuration_is_refused(
    settings_file: Callable[..., Path], redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = environment(settings_file(), redis_server.url)
    del env["DSPYQ_CONFIG"]
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (line,) = refused(env)
    assert line == "dspyq: there is no dspyq.toml here; write one, or set DSPYQ_CONFIG to your configuration file"


def test_a_port_that_is_taken_is_named_before_any_worker_starts(
    settings_file: Callable[..., Path], redis_server: RedisServer
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1] - 1
        env = environment(settings_file({"metrics": {"port": port}}), redis_server.url)
        (line,) = refused(env, "--processes=2")
    assert line.startswith(f"dspyq: metrics.port: a worker cannot listen at 127.0.0.1:{port + 1}: ")


def test_the_parent_imports_the_standard_library_alone() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import dspyq.__main__, dspyq.processes.command\n"
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    roots = {name.partition(".")[0] for name in done.stdout.split()}
    assert roots - set(sys.stdlib_module_names) == {"dspyq"}


def test_the_command_has_help_and_is_completed() -> None:
    plain = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    help_page = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True, env=plain).stdout
    assert "--processes" in help_page
    assert "SIGHUP" in help_page
    env = {**plain, "_DSPYQ_COMPLETE": "complete_bash", "COMP_WORDS": "dspyq worker --proc", "COMP_CWORD": "2"}
    script = str(Path(sys.executable).with_name("dspyq"))
    done = subprocess.run([script], capture_output=True, text=True, check=False, env=env)
    assert "--processes" in done.stdout
