"""Version 0.1, from this repository's history, beside the code of today."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.configuration import environment
from tests.support.processes import REPOSITORY
from tests.support.producer_process import Producer
from tests.support.worker import Worker

#: What 0.1 was when everything moved into one package.
VERSION_0_1 = "341e884"


def readable_by_0_1(settings: Path) -> Path:
    """Return a configuration without the keys of ``workers`` that 0.1 does not know."""
    file = settings.with_name(f"{settings.stem}-0.1.toml")
    file.write_text(settings.read_text().replace("remote_control = true\n", ""))
    return file


@pytest.fixture(scope="session")
def old_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of 0.1."""
    return files_of(VERSION_0_1, tmp_path_factory.mktemp("version-0-1"))


def files_of(commit: str, folder: Path) -> Path:
    """Extract the files of an earlier version, below a folder; return theirs."""
    archive = folder / "files.tar"
    try:
        command = ["git", "archive", "--output", str(archive), commit]
        subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"no git, or a clone without commit {commit}")
    with tarfile.open(archive) as files:
        files.extractall(folder / "repository")  # noqa: S202 - of our own making
    return folder / "repository"


@pytest.fixture
def old_environment(
    old_repository: Path, session_settings_file: Path, redis_server: Any, endpoint: Any
) -> dict[str, str]:
    """The environment of a process of 0.1 with this process's configuration and Redis."""
    del endpoint  # started and reset
    paths = {"PYTHONPATH": str(old_repository), "PYTHONSAFEPATH": ""}
    return environment(readable_by_0_1(session_settings_file), redis_server.url, paths)


@pytest.fixture
def old_producer(old_repository: Path, old_environment: dict[str, str]) -> Iterator[Callable[..., Producer]]:
    """Start code in a producer of 0.1: ``old_producer(function, question="…").result()``."""
    with ExitStack() as producers:

        def start(code: Callable[..., Any], **arguments: Any) -> Producer:
            producer = Producer(code, arguments, old_environment, repository=old_repository)
            producers.callback(producer.close)
            return producer

        yield start


@pytest.fixture
def old_worker(old_repository: Path, old_environment: dict[str, str]) -> Iterator[Worker]:
    """A worker of 0.1, ready."""
    with Worker(old_environment, application="workers", repository=old_repository) as worker:
        worker.ready()
        yield worker
        worker.kill()
