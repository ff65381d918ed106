"""Removal of the files that batches keep beside OUT: the journal and what it keeps of standard input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dspyq.batch.journal import Journal
from dspyq.errors import BatchRefused

_JOURNAL, _SPOOL = ".journal", ".input"


def remove_batch_files(folder: Path, is_wanted: Callable[[Journal], bool]) -> tuple[int, list[str]]:
    """Remove journals and kept inputs in a folder; their batches cannot be taken up again. OUT stays.

    Args:
        folder: The folder.
        is_wanted: Returns True for the journal of a batch to be forgotten.

    Returns:
        Number of files removed, and of each batch that is not reached a sentence.
    """
    removed = 0
    not_reached: list[str] = []
    for path in sorted(folder.glob(f"*{_JOURNAL}")):
        output = path.with_name(path.name.removesuffix(_JOURNAL))
        try:
            journal = Journal(output)
        except BatchRefused as error:
            not_reached.append(str(error))
            continue
        try:
            if is_wanted(journal):
                removed += _remove(path, output)
                if output.exists():
                    not_reached.append(f"{output}: the batch's own output, which is yours to delete")
        finally:
            journal.close()
    return removed, not_reached


def _remove(path: Path, output: Path) -> int:
    sides = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
    files = [each for each in (path, *sides, output.with_name(f"{output.name}{_SPOOL}")) if each.exists()]
    for each in files:
        each.unlink()
    return len(files)
