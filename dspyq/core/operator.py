"""The name of the person or process that runs a command, for logs of changes."""

from __future__ import annotations

import getpass
import socket
from contextlib import suppress


def operator_name() -> str:
    """Return ``user@host``."""
    user = "unknown"
    with suppress(OSError, KeyError, ImportError):  # a container's user may have no name
        user = getpass.getuser()
    return f"{user}@{socket.gethostname()}"
