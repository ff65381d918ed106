"""The types that users see: type checkers read the package as it is installed, and a user's file beside it."""

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.installed

REPOSITORY = Path(__file__).parent.parent.parent
USER_CODE = Path(__file__).parent / "user_code.py"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with the user's file, and an environment that has the package in its site-packages."""
    folder = tmp_path_factory.mktemp("typed")
    environment = folder / ".venv"
    venv.create(environment, with_pip=False)
    (site_packages,) = environment.glob("lib/python*/site-packages")
    shutil.copytree(REPOSITORY / "dspyq", site_packages / "dspyq", ignore=shutil.ignore_patterns("__pycache__"))
    (site_packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    shutil.copy(USER_CODE, folder)
    return folder


def check(project, module, *arguments):
    command = [sys.executable, "-m", module, *arguments, USER_CODE.name]
    return subprocess.run(command, cwd=project, check=False, capture_output=True, text=True)


def test_the_package_is_marked_as_typed(project):
    assert list(project.glob(".venv/lib/python*/site-packages/dspyq/py.typed"))


def test_mypy_strict_finds_nothing_in_a_users_file(project):
    done = check(project, "mypy", "--strict", "--config-file=", "--python-executable", ".venv/bin/python")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(importlib.util.find_spec("basedpyright") is None, reason="basedpyright is not installed")
def test_pyright_finds_nothing_in_a_users_file(project):
    done = check(project, "basedpyright", "--pythonpath", ".venv/bin/python", "--level", "error")
    assert done.returncode == 0, done.stdout + done.stderr
