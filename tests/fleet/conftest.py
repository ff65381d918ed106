"""Version 0.1, from this repository's history, beside the code of today."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.configuration import default_document, environment, merged, write_settings
from tests.support.processes import REPOSITORY
from tests.support.producer_process import Producer
from tests.support.worker import Worker

#: What 0.1 was when everything moved into one package.
VERSION_0_1 = "341e884"


@pytest.fixture(scope="session")
def old_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of 0.1."""
    folder = tmp_path_factory.mktemp("version-0-1")
    archive = folder / "files.tar"
    try:
        command = ["git", "archive", "--output", str(archive), VERSION_0_1]
        subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"no git, or a clone without commit {VERSION_0_1}")
    with tarfile.open(archive) as files:
        files.extractall(folder / "repository")  # noqa: S202 - of our own making
    return folder / "repository"


@pytest.fixture
def old_environment(old_repository: Path, redis_server: Any, endpoint: Any, tmp_path: Path) -> dict[str, str]:
    """The environment of a process of 0.1 with this process's Redis, and its configuration but for what 0.1 lacks."""
    document = merged(default_document(endpoint.url), {"workers": {"remote_control": None}})
    paths = {"PYTHONPATH": str(old_repository), "PYTHONSAFEPATH": ""}
    return environment(write_settings(tmp_path / "version-0-1.toml", document), redis_server.url, paths)


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
