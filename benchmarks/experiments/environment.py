"""Makes .venvs/experiments, with numpy and the packages that the statistics are held against, and prints its Python."""

from __future__ import annotations

from pathlib import Path

from benchmarks.environment import make_environment

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def make() -> Path:
    """Make the environment where it is missing or of other requirements, and return its Python.

    Raises:
        subprocess.SubprocessError: If a package cannot be installed here.
    """
    return make_environment("experiments", REQUIREMENTS.read_text())


if __name__ == "__main__":
    print(make())
