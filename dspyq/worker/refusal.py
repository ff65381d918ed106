"""The end of a process that cannot begin: a line for each fault, instead of a traceback."""

from __future__ import annotations

import sys
from typing import NoReturn

from dspyq.config.secrets import scrub
from dspyq.core.visible import visible_line
from dspyq.errors import ConfigurationError, DspyqError


def refuse(error: DspyqError) -> NoReturn:
    """End the process with a line for each fault."""
    for fault in error.faults if isinstance(error, ConfigurationError) else (str(error),):
        # Plain text instead of a log entry: nothing runs yet, and the operator reads the terminal.
        print(f"dspyq: {visible_line(scrub(fault))}", file=sys.__stderr__)
    raise SystemExit(1) from None
