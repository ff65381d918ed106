"""The built wheel, and projects that have it installed in environments of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from tests.support.configuration import default_document, environment, merged, write_settings
from tests.support.processes import REPOSITORY, LocalProcess
from tests.support.worker import START_TIMEOUT_SECONDS

PROJECTS = Path(__file__).parent / "projects"
_TIMEOUT_SECONDS = 120
#: pyproject.toml's; where the environment has an older one, pip fetches one for the build.
_SETUPTOOLS = Version("77")


def run(*command: str | Path, **options: Any) -> str:
    """Run a command and return its output."""
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(*arguments: str | Path) -> str:
    """Run this environment's pip."""
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)


def build(source: Path, folder: Path) -> Path:
    """Build a project's wheel into a folder."""
    isolated = Version(installed_version("setuptools")) < _SETUPTOOLS
    options = [] if isolated else ["--no-build-isolation"]
    pip("wheel", "--no-deps", *options, "--wheel-dir", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dspyq's wheel, built from a copy: a build leaves files in its source, and takes up those of an earlier one."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("dspyq", "config", "producer", "workers"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    return build(source, folder)


class Installation:
    """A project's copy beside an environment of its own, in which dspyq is installed from its wheel.

    Third-party packages come from this environment by a path; its editable dspyq does not, for that hangs on a ``.pth``
    file, and Python reads none behind such a path.

    Attributes:
        folder: The project.
        python: The environment's Python.
        site: The environment's packages.
        version: The version of its dspyq.
        env: What its processes get.
    """

    def __init__(self, folder: Path, name: str, wheel: Path, env: dict[str, str]) -> None:
        self.folder = Path(shutil.copytree(PROJECTS / name, folder / "project"))
        run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
        self.python = folder / "venv" / "bin" / "python"
        places = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
        self.site = Path(sysconfig.get_path("purelib", "venv", places))
        (self.site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.version = wheel.name.split("-")[1]
        self.env = env
        self.install(wheel)

    def install(self, wheel: Path) -> None:
        """Install a wheel."""
        pip("--python", self.python, "install", "--no-deps", "--no-index", wheel)

    def uninstall(self, name: str) -> None:
        """Uninstall a package."""
        pip("--python", self.python, "uninstall", "--yes", name)

    def run(self, *arguments: str) -> Any:
        """Run the project's Python and return the JSON it prints; dspyq must be the installed one."""
        found = json.loads(run(self.python, *arguments, cwd=self.folder, env=self.env))
        assert Path(found["dspyq"]) == self.site / "dspyq" / "__init__.py"
        return found

    def start(self, *arguments: str, ready_line: str) -> LocalProcess:
        """Start Celery's command in the project and wait for a line of it."""
        command = [str(self.python), "-m", "celery", *arguments]
        process = LocalProcess(arguments[2], command, env=self.env, directory=self.folder, ready_line=ready_line)
        process.ready(START_TIMEOUT_SECONDS)
        return process


@pytest.fixture
def install(
    wheel: Path, tmp_path: Path, redis_server: Any, endpoint: Any
) -> Iterator[Callable[..., tuple[Installation, ExitStack]]]:
    """Install a project of ``projects/``: ``install("django", changes of its dspyq.toml)``."""
    with ExitStack() as running:

        def make(name: str, changes: dict[str, Any] | None = None) -> tuple[Installation, ExitStack]:
            settings = tmp_path / "dspyq.toml"
            # As many projects state their own application's, in every process.
            theirs = dict.fromkeys(("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"), redis_server.url.replace("/0", "/1"))
            env = environment(settings, redis_server.url, theirs)
            env.pop("PYTHONPATH", None)
            project = Installation(tmp_path, name, wheel, env)
            write_settings(settings, merged(default_document(endpoint.url), changes or {}))
            return project, running

        yield make
