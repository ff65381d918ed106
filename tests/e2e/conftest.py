"""Celery's command line as a fork: a start that is refused costs no imports."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.nursery import run_fork


@pytest.fixture
def run_celery(nursery: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command of Celery to its end: ``run_celery("-A", "dspyq", "worker", env=...)``."""
    del nursery  # started
    return lambda *arguments, env: run_fork("celery", arguments, env=env, folder=tmp_path)
