"""A nightly file: ``python -m producer.nightly tickets.jsonl triaged.jsonl``, from cron.

Each line in is ``{"ticket": "…"}``, each line out its triage or its error, in the same order. For millions of rows, and
for a run that goes on after a crash, use ``dspyq batch run``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dspyq.errors import DspyqError
from producer import predict

_ROW_TIMEOUT_SECONDS = 3600


def triage_file(source: Path, target: Path) -> int:
    """Triage each ticket of a file and return how many failed.

    Args:
        source: JSON lines with a ``ticket`` each.
        target: JSON lines of triages.
    """
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    failures = 0
    with target.open("w", encoding="utf-8") as lines:
        for job in predict.many(rows, program="triage"):
            try:
                line = job.get(timeout=_ROW_TIMEOUT_SECONDS).to_dict()
            except (DspyqError, TimeoutError) as error:
                failures += 1
                line = {"error": type(error).__name__}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    return failures


def main() -> None:
    """Triage the file that the command line names; exit with 1 if a ticket failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    raise SystemExit(triage_file(arguments.source, arguments.target) > 0)


if __name__ == "__main__":
    main()
