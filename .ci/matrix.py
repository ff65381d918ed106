#!/usr/bin/env python3
"""Run the fast tests at the lowest and the newest versions of dependencies, and on each Python of this machine.

Environments are kept in .venvs/. Prints a line for each and exits 1 if any failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / ".venvs"
PINNED, LOWEST = "constraints.txt", "constraints-lowest.txt"
#: The Pythons that pyproject.toml names beside the one that runs this.
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
#: What takes no longer than a minute or so and touches every library.
FAST_TESTS = (
    "tests/core", "tests/config", "tests/store", "tests/prediction", "tests/cache", "tests/client", "tests/contracts",
    "tests/delivery/test_leases.py", "tests/delivery/test_records.py", "tests/delivery/test_takes.py",
    "tests/delivery/test_transport.py", "tests/delivery/test_versions.py", "tests/test_architecture.py",
)  # fmt: skip
LONGEST_SECONDS = 600


def find_python(version: str) -> str | None:
    """Return a Python of this version, on PATH or among pyenv's."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(f"python{version}"), *map(str, root.glob(f"versions/{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        asked = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


def make(name: str, python: str, constraints: str | None) -> Path:
    """Make an environment, or bring it up to date, and return its Python.

    Raises:
        subprocess.CalledProcessError: If that fails.
    """
    folder = ENVIRONMENTS / name
    own = folder / "bin" / "python"
    packages = ["--editable", ".[test]", *(("--constraint", constraints) if constraints else ("--upgrade",))]
    uv = Path(sys.executable).with_name("uv")
    if uv.exists():
        if not own.exists():
            run([str(uv), "venv", "--quiet", "--python", python, str(folder)])
        run([str(uv), "pip", "install", "--quiet", "--system-certs", "--python", str(own), *packages])
    else:
        if not own.exists():
            run([python, "-m", "venv", str(folder)])
        run([str(own), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
    return own


def run(command: list[str]) -> None:
    """Run a command; show what it printed only where it fails.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stdout.write(done.stdout + done.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)


def test(python: Path) -> bool:
    """Run the fast tests; show their output only where some fail, if only among others."""
    command = [str(python), ".ci/again.py", "--quiet", *FAST_TESTS]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        sys.stdout.write(f"longer than {LONGEST_SECONDS} s\n")
        return False
    if done.returncode or "UNSTABLE" in done.stdout:
        sys.stdout.write(done.stdout + done.stderr)
    return done.returncode == 0


def main(names: list[str]) -> int:
    """Run all environments, or those that are named."""
    here = "{}.{}".format(*sys.version_info[:2])
    wanted = [("lowest", here, LOWEST), ("newest", here, None)]
    wanted += [(f"python{version}", version, PINNED) for version in PYTHONS if version != here]
    failed = False
    for name, version, constraints in wanted:
        if names and name not in names:
            continue
        python = sys.executable if version == here else find_python(version)
        if python is None:
            print(f"matrix: {name:<10} skipped: this machine has no Python {version}", flush=True)
            continue
        began_at = time.monotonic()
        try:
            passed = test(make(name, python, constraints))
        except (OSError, subprocess.CalledProcessError) as error:
            print(error)
            passed = False
        failed |= not passed
        seconds = time.monotonic() - began_at
        print(f"matrix: {name:<10} {'passed' if passed else 'FAILED'} in {seconds:.0f} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    sys.exit(main(sys.argv[1:]))
