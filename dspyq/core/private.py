"""Files and folders readable by their user alone, regardless of the umask: they hold users' content."""

from __future__ import annotations

import os
from pathlib import Path

_FILE, _FOLDER = 0o600, 0o700


def open_private(path: str | Path, flags: int) -> int:
    """Open a file as ``os.open`` does; a new file is readable by its user alone. Usable as the opener of ``open``."""
    return os.open(path, flags | os.O_CLOEXEC, _FILE)


def make_private_folder(folder: Path) -> None:
    """Make a folder accessible to its user alone, or restrict an existing one to that.

    Raises:
        OSError: If it cannot be made, or is another user's.
    """
    folder.mkdir(mode=_FOLDER, parents=True, exist_ok=True)
    folder.chmod(_FOLDER)
