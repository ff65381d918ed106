"""Files of reports."""

from __future__ import annotations

from pathlib import Path

from dspyq.errors import InvalidFile


def write_report(path: Path, text: str) -> None:
    """Write a report.

    Raises:
        InvalidFile: If the file cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidFile(f"cannot write {path}: {error.strerror}") from None
