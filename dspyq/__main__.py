"""The command line: ``dspyq`` and ``python -m dspyq``."""

from __future__ import annotations

import os
import sys

#: Set by a shell that completes a command.
_COMPLETES = "_DSPYQ_COMPLETE"
_ASKS_FOR_HELP = {"--help", "-h"}


def main() -> None:
    """Run the command. The parent of workers lives as long as they do, so it imports nothing of the other commands."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["worker"] and _COMPLETES not in os.environ and not _ASKS_FOR_HELP & set(arguments):
        from dspyq.processes.command import main as run_workers

        sys.exit(run_workers(arguments[1:]))
    from dspyq.cli.main import main as run_command

    run_command()


if __name__ == "__main__":
    main()
