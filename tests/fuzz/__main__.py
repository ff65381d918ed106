"""Fuzzes all parsers: `python -m tests.fuzz --minutes 2`, or one of them: `--only result --minutes 60`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from tests.fuzz.run import fuzz


def main() -> None:
    """Run what the command line names; exit 1 with the inputs of findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="for all together")
    parser.add_argument("--only", help="one parser")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="decides every input")
    options = parser.parse_args()
    os.environ.setdefault("DSPYQ_CONFIG", str(Path(__file__).with_name("dspyq.toml")))
    os.environ.setdefault("DSPYQ_REDIS_URL", "redis://127.0.0.1:1/0")  # nothing is there, and none of them asks it
    logging.disable(logging.CRITICAL)
    from tests.fuzz.targets import targets

    chosen = {name: target for name, target in targets().items() if options.only in {None, name}}
    if not chosen:
        parser.error(f"there is no {options.only}; there is {', '.join(targets())}")
    is_good = True
    for name, target in chosen.items():
        tried, findings = fuzz(name, target, options.seed, seconds=60 * options.minutes / len(chosen))
        print(f"{name}: {tried:,} inputs, {len(findings)} findings", flush=True)
        for finding in findings:
            print(finding, flush=True)
        is_good &= not findings
    print(f"seed {options.seed}")
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
