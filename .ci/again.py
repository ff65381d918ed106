#!/usr/bin/env python3
"""Run pytest, and the tests that failed once more, alone: ``python .ci/again.py ARGUMENTS`` of pytest.

A few tests that fail among others and pass alone do not fail the run. They are unstable, which is a fault to mend, so
they are printed with their first failure; the block is added to the file that $UNSTABLE_TESTS names, if it is set.
A collection error, an error of pytest itself or more failures fail the run at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

#: More than these are no accident of timing.
MOST_UNSTABLE = 4
_TAIL_CHARACTERS = 6_000
_LINE = "=" * 88


class Failures:
    """A plugin that keeps the failures of a run.

    Attributes:
        texts: The first failure of each test, with the end of its output, by its id.
        were_collected: False if a file could not be imported.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.texts: dict[str, str] = {}
        self.were_collected = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a failure of a test, or of its fixtures."""
        if report.failed:
            outputs = (f"--- {name}\n{content[-_TAIL_CHARACTERS:]}" for name, content in report.sections)
            self.texts.setdefault(report.nodeid, "\n".join((report.longreprtext, *outputs)))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note that a file could not be imported."""
        self.were_collected &= not report.failed


def main(arguments: list[str]) -> int:
    """Run the tests, and those that failed again; return the exit status."""
    failures = Failures()
    with tempfile.TemporaryDirectory(prefix="again-") as cache:  # of this run alone, for --last-failed
        own_cache = ["-o", f"cache_dir={cache}"]
        status = int(pytest.main([*arguments, *own_cache], plugins=[failures]))
        is_few = 0 < len(failures.texts) <= MOST_UNSTABLE
        if status != pytest.ExitCode.TESTS_FAILED or not is_few or not failures.were_collected:
            return status
        print(f"\nOnce more, alone: {' '.join(failures.texts)}", flush=True)
        without_coverage = ["--no-cov"] if any(each.startswith("--cov") for each in arguments) else []
        alone = [
            *arguments,
            *own_cache,
            *without_coverage,
            "-n",
            "0",
            "--last-failed",
            "--last-failed-no-failures=none",
        ]
        if subprocess.run([sys.executable, "-m", "pytest", *alone], check=False).returncode:
            return status
    block = describe(failures.texts)
    print(block, flush=True)
    if kept := os.environ.get("UNSTABLE_TESTS"):
        with Path(kept).open("a", encoding="utf-8") as file:
            file.write(block)
    return 0


def describe(texts: dict[str, str]) -> str:
    """Return the block of text about tests that passed only when run again."""
    head = "UNSTABLE: passed alone, failed among others: mend these"
    failures = (f"{name}\n\n{text}" for name, text in texts.items())
    return "\n".join(("", _LINE, head, *(f"  {name}" for name in texts), _LINE, *failures, _LINE, ""))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
