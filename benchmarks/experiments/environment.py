"""Makes .venvs/experiments, with numpy and the packages that the statistics are held against, and prints its Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venvs" / "experiments"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_LONGEST_SECONDS = 600


def make() -> Path:
    """Make the environment where it is missing or of other requirements, and return its Python.

    Raises:
        subprocess.SubprocessError: If a package cannot be installed here.
    """
    python, stamp = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "requirements.txt"
    if stamp.exists() and stamp.read_text() == REQUIREMENTS.read_text():
        return python
    _run(sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT))
    uv = Path(sys.executable).with_name("uv")
    installer = [str(uv), "pip", "install", "--system-certs", "--python", str(python)]
    _run(*(installer if uv.exists() else [str(python), "-m", "pip", "install"]), "--quiet", "-r", str(REQUIREMENTS))
    stamp.write_text(REQUIREMENTS.read_text())
    return python


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=_LONGEST_SECONDS, stdout=sys.stderr, cwd=ROOT)


if __name__ == "__main__":
    print(make())
