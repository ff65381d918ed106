"""Environments of their own for what benchmarks need and the package's environment must not have: ``.venvs/<name>``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_LONGEST_SECONDS = 600


def make_environment(name: str, requirements: str) -> Path:
    """Make an environment where it is missing or of other requirements, and return its Python.

    Args:
        name: Its name.
        requirements: The text of its requirements file.

    Raises:
        subprocess.SubprocessError: If a package cannot be installed here.
    """
    environment = ROOT / ".venvs" / name
    python, stamp = environment / "bin" / "python", environment / "requirements.txt"
    if stamp.exists() and stamp.read_text() == requirements:
        return python
    _run(sys.executable, "-m", "venv", "--clear", str(environment))
    wanted = environment / "wanted.txt"
    wanted.write_text(requirements)
    uv = Path(sys.executable).with_name("uv")
    installer = [str(uv), "pip", "install", "--system-certs", "--python", str(python)]
    _run(*(installer if uv.exists() else [str(python), "-m", "pip", "install"]), "--quiet", "-r", str(wanted))
    wanted.rename(stamp)
    return python


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=_LONGEST_SECONDS, stdout=sys.stderr, cwd=ROOT)
