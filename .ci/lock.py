#!/usr/bin/env python3
"""Write requirements.lock: every package of constraints.txt with the hashes of all its files on PyPI.

pip refuses an editable install, and every package without a hash, as soon as a constraint has hashes. So they stand in
a file of their own, beside constraints.txt: `pip install --require-hashes --no-deps -r requirements.lock`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = (
    "# Every package of constraints.txt with the hashes of its files, for all platforms; `make lock` writes it:\n"
    "# `pip install --require-hashes --no-deps -r requirements.lock && pip install --no-deps --editable .`\n"
)


def main() -> None:
    """Have uv look the hashes up; its path is the argument."""
    command = [sys.argv[1], "pip", "compile", "constraints.txt", "--no-deps", "--generate-hashes", "--universal"]
    options = ["--python-version", "3.11.7", "--no-header", "--no-annotate", "--quiet"]
    found = subprocess.run([*command, *options], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    (ROOT / "requirements.lock").write_text(HEADER + found)


if __name__ == "__main__":
    main()
