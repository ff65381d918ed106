"""``dspyq.testing`` in a user's project: the tests of ``project`` pass where there is no Redis."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.support.journeys import few_of

PROJECT = Path(__file__).parent / "project"
REPOSITORY = Path(__file__).parent.parent.parent
IS_REGISTERED = bool(importlib.metadata.entry_points(group="pytest11", name="dspyq"))
PLUGINS = ["-p", "no:cacheprovider", "-p", "no:valkey", "-p", "no:xdist"]


@pytest.fixture
def run_pytest(tmp_path):
    """Run pytest in a project of its own, with what the project's tests would have as users run them."""

    def run(*arguments, project=PROJECT, **environment):
        folder = tmp_path / "project"
        shutil.copytree(project, folder, ignore=shutil.ignore_patterns("__pycache__"))
        env = {name: value for name, value in os.environ.items() if not name.startswith(("DSPYQ_", "PYTEST_"))}
        env |= {"PYTHONPATH": str(REPOSITORY)} | environment
        # An environment that was installed before the entry point has none; nor has one that loads none.
        is_loaded = IS_REGISTERED and "PYTEST_DISABLE_PLUGIN_AUTOLOAD" not in env
        plugins = [*PLUGINS, *([] if is_loaded else ["-p", "dspyq.pytest_plugin"])]
        command = [sys.executable, "-m", "pytest", "-q", *plugins, *arguments]
        return subprocess.run(command, cwd=folder, env=env, check=False, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("name", few_of(sorted(path.name for path in PROJECT.glob("test_*.py")), 1))
def test_a_users_tests_pass_without_redis(run_pytest, name):
    environment = {"DSPYQ_CONFIG": "one_program.toml"} if name == "test_one_program.py" else {}
    done = run_pytest(name, **environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_of_pytest_without_predictions_needs_no_configuration_and_loads_nothing(tmp_path, run_pytest):
    project = tmp_path / "other"
    project.mkdir()
    heavy = {"celery", "redis", "pydantic", "dspy"}
    (project / "test_other.py").write_text(
        f"import sys\n\n\ndef test_other():\n    assert not {heavy} & sys.modules.keys()\n"
    )
    done = run_pytest(project=project, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.journey
def test_the_examples_of_the_docs_pass(tmp_path, run_pytest):
    examples = tmp_path / "examples"
    examples.mkdir()
    for block in blocks():
        if block.page == "docs/testing.md" and block.file:
            with (examples / block.file).open("a", encoding="utf-8") as file:
                file.write(block.text)
    done = run_pytest(project=examples)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plugin_is_registered_by_its_entry_point():
    import tomllib

    document = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert document["project"]["entry-points"]["pytest11"] == {"dspyq": "dspyq.pytest_plugin"}
