"""Every command, as the command line lists them: a mistake is one line that names what to change, and no traceback."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from dspyq.cli.main import app
from tests.support.configuration import API_KEY, API_KEY_VARIABLE, environment
from tests.support.journeys import few_of
from tests.support.nursery import run_fork

Run = Callable[..., subprocess.CompletedProcess[str]]
Path_ = tuple[str, ...]

#: What a command's own arguments are given, by their names; any other gets a text.
SAMPLES = {"file": "rows.jsonl", "out": "out.jsonl", "inputs": "question=x", "folder": "project", "program": "qa",
           "judgements": "thumbs=1", "token": "x1", "tenant": "acme", "key_id": "4fQ0aZ81kLmB"}  # fmt: skip
#: Options without which a command only says what it lacks.
NEEDED = {
    "batch run": ["--output", "out.jsonl"],
    "breaker close": ["--all"],
    "breaker open": ["--all"],
    "breaker reset": ["--all"],
    "budget reset": ["--yes"],
    "budget set": ["--daily", "5"],
    "cache clear": ["--all"],
    "forget": ["--before", "2020-01-01", "--yes"],
    "experiment export": ["--out", "rows.jsonl"],
    "experiment ramp": ["0.5"],
    "experiment simulate": ["--calls-per-day", "100", "--baseline", "0.5"],
    "keys create": ["--tenant", "acme", "--name", "ci", "--json"],
    "keys edit": ["--rate", "5"],
    "keys rotate": ["--json"],
    "tenants forget": ["--yes"],
    "tenants limit": ["--daily", "5"],
}
#: Commands that go on until they are ended, or start a stack of their own; worker has tests of its own.
STACKS = {"demo", "up", "worker"}
#: Those that need no Redis; the last read a batch's files or an experiment's table first.
WITHOUT_REDIS = {
    "batch schedule", "health", "init", "version", "batch report", "batch retry", "experiment kill", "experiment start",
    "experiment simulate", "feedback", "keys hash", "encryption new-key", "encryption rotate", "encryption status",
    "users",
}  # fmt: skip
WITHOUT_CONFIGURATION = {"batch report", "encryption new-key", "health", "init", "version"}
#: Options of texts that mean nothing to the command, or of files that it writes.
FREE_TEXTS = {
    "--api-base", "--api-key-env", "--html", "--markdown", "--model", "--name", "--output", "--unit", "--input",
    "--tenant",
}  # fmt: skip


def commands(command: Any = None, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    command = command or typer.main.get_command(app)
    parts = getattr(command, "commands", None)
    if parts is None:
        yield path, command
        return
    for name, part in parts.items():
        yield from commands(part, (*path, name))


ALL = dict(commands())
NAMES = [" ".join(path) for path in ALL]


def command_line(name: str) -> list[str]:
    path = tuple(name.split())
    required = [each for each in ALL[path].params if each.param_type_name == "argument" and each.required]
    return [*path, *(SAMPLES.get(each.name, "no-such-name") for each in required), *NEEDED.get(name, [])]


def with_option(option: str) -> list[str]:
    return [" ".join(path) for path, command in ALL.items() if any(option in each.opts for each in command.params)]


def options_with_values() -> list[tuple[str, str]]:
    return [
        (" ".join(path), each.opts[0])
        for path, command in ALL.items()
        for each in command.params
        if each.param_type_name == "option" and not each.is_flag and each.name != "help"
    ]


@pytest.fixture
def run(session_settings_file: Path, redis_server: Any, endpoint: Any, nursery: Path, tmp_path: Path) -> Run:
    """Run a command in a folder of its own that holds a file of rows, and no configuration."""
    del endpoint, nursery  # started
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "rows.jsonl").write_text(json.dumps({"question": "x"}) + "\n")

    def start(*arguments: str, redis_url: str | None = None, configured: bool = True) -> Any:
        variables = environment(session_settings_file, redis_url or redis_server.url)
        variables |= {"COLUMNS": "80", "NO_COLOR": "1", API_KEY_VARIABLE: API_KEY}
        if not configured:
            del variables["DSPYQ_CONFIG"]
        done = run_fork("dspyq", arguments, env=variables, folder=tmp_path, directory=folder)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return start


def line_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that failed."""
    assert done.returncode not in {0, None}, done.stdout
    lines = done.stderr.splitlines()
    assert len(lines) == 1, (done.stdout, lines)
    assert lines[0].startswith("dspyq: ")
    return lines[0]


@pytest.mark.parametrize("name", few_of([name for name in NAMES if name not in STACKS | WITHOUT_REDIS], 6))
def test_a_redis_that_is_not_there_is_one_line_that_names_the_setting(name: str, run: Run) -> None:
    told = line_of(run(*command_line(name), redis_url="redis://127.0.0.1:1/0"))
    assert "DSPYQ_REDIS_URL" in told


@pytest.mark.parametrize("name", sorted(WITHOUT_REDIS))
def test_a_command_that_needs_no_redis_does_not_miss_it(name: str, run: Run) -> None:
    done = run(*command_line(name), redis_url="redis://127.0.0.1:1/0")
    assert "REDIS" not in done.stderr
    assert done.returncode == 0 or line_of(done)


@pytest.mark.parametrize("name", few_of([name for name in NAMES if name not in STACKS | WITHOUT_CONFIGURATION], 6))
def test_a_folder_without_a_configuration_is_one_line_that_names_the_file_and_changes_nothing(
    name: str, run: Run, redis_server: Any
) -> None:
    client = redis_server.client()
    client.hset("dspy:v1:breaker:kept", "field", "1")
    client.hset("dspy:v1:statistics:kept.control", "calls", "1")
    told = line_of(run(*command_line(name), configured=False))
    assert "dspyq.toml" in told
    assert "DSPYQ_CONFIG" in told
    assert client.exists("dspy:v1:breaker:kept", "dspy:v1:statistics:kept.control") == 2


@pytest.mark.parametrize(
    "name", few_of([name for name in NAMES if name != "worker"], 6)
)  # Celery reads its further options
def test_an_unknown_option_is_one_line_that_names_it_and_the_help(name: str, run: Run) -> None:
    told = line_of(run(*command_line(name), "--no-such-option") if name != "demo" else run("demo", "--no-such-option"))
    assert "--no-such-option" in told
    assert f"dspyq {name} --help" in told


@pytest.mark.parametrize("name", [name for name in NAMES if "no-such-name" in command_line(name)])
def test_a_name_that_is_not_there_is_one_line(name: str, run: Run) -> None:
    assert "no-such-name" in line_of(run(*command_line(name)))


@pytest.mark.parametrize(
    ("name", "option"),
    few_of([each for each in options_with_values() if each[1] not in FREE_TEXTS and each[0] not in STACKS], 12),
)
def test_a_value_that_an_option_cannot_have_is_one_line(name: str, option: str, run: Run) -> None:
    assert line_of(run(*command_line(name), option, "no-such-value"))


@pytest.mark.parametrize("name", few_of(NAMES, 12))
def test_help_needs_no_configuration(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPYQ_CONFIG", "/nowhere.toml")
    done = CliRunner().invoke(app, [*name.split(), "--help"])
    assert done.exit_code == 0
    assert "Usage:" in done.stdout
    assert done.stderr == ""


@pytest.mark.usefixtures("shared_worker")
@pytest.mark.parametrize("name", few_of([name for name in with_option("--json") if name not in STACKS], 8))
def test_json_is_json_and_an_error_one_line_beside_it(name: str, run: Run) -> None:
    done = run(*command_line(name), "--json")
    assert all(json.loads(line) is not None for line in done.stdout.splitlines())
    assert done.stdout if done.returncode == 0 else line_of(done)
    if done.returncode == 0:
        assert done.stderr == ""
