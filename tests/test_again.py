"""CI runs a failed test once more, alone, and loses no landing for one that passes then."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

AGAIN = Path(__file__).parents[1] / ".ci" / "again.py"
STEADY = """
def test_steady():
    with open("runs", "a") as file:
        file.write("steady ")
"""
UNSTABLE = """
from pathlib import Path

def test_unstable():
    ran = Path("ran")
    is_first = not ran.exists()
    ran.touch()
    print("what it printed")
    assert not is_first, "only among others"
"""


@pytest.fixture
def run(tmp_path):
    """Run tests, each a file's source."""

    def run(*, at_once=0, **files):
        (tmp_path / "pytest.ini").touch()
        for name, source in files.items():
            (tmp_path / f"test_{name}.py").write_text(source)
        env = {"PATH": os.environ["PATH"], "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "UNSTABLE_TESTS": "kept"}
        command = [sys.executable, str(AGAIN), "-p", "xdist.plugin", "-n", str(at_once)]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    return run


def test_a_test_that_passes_alone_is_printed_with_its_first_failure_and_fails_nothing(run, tmp_path):
    done = run(at_once=2, steady=STEADY, unstable=UNSTABLE)
    assert done.returncode == 0, done.stdout + done.stderr
    block = done.stdout.partition("UNSTABLE: passed alone, failed among others: mend these")[2]
    for text in ("  test_unstable.py::test_unstable\n", "only among others", "what it printed"):
        assert text in block
        assert text in (tmp_path / "kept").read_text()
    assert (tmp_path / "runs").read_text() == "steady "  # what passed is not run again


def test_a_test_that_fails_again_fails_the_run(run):
    done = run(steady=STEADY, broken="def test_broken():\n    assert False\n")
    assert done.returncode == 1
    assert "Once more, alone: test_broken.py::test_broken\n" in done.stdout
    assert "UNSTABLE" not in done.stdout


@pytest.mark.parametrize(
    "source",
    ["import missing_module\n", "\n".join(f"def test_{number}():\n    assert False\n" for number in range(5))],
    ids=["a file that cannot be imported", "many"],
)
def test_other_failures_fail_the_run_at_once(run, source):
    done = run(unstable=UNSTABLE, broken=source)
    assert done.returncode != 0
    assert "Once more" not in done.stdout
