"""Lines of a shipment in a temporary file, so that they are never in memory together."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO

from dspyq.lane.providers.protocol import ShipmentLine

_CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@contextmanager
def spooled(
    lines: Iterable[ShipmentLine], write: Callable[[str, bytes], bytes], *, separator: bytes = b"\n"
) -> Iterator[tuple[IO[bytes], int, int]]:
    """Write lines to a file that only this process can read, and remove it afterwards.

    Yields the file, its bytes and the number of lines.

    Args:
        lines: The lines.
        write: Returns a line as it is sent, from its custom id and its body.
        separator: The bytes between two lines.

    Raises:
        ValueError: If a custom id is none that every provider takes, or there is no line.
    """
    with tempfile.TemporaryFile(prefix="dspyq-shipment-") as file:
        size = count = 0
        for custom_id, body in lines:
            if not _CUSTOM_ID.fullmatch(custom_id):
                raise ValueError("a custom id has 1 to 64 characters of A-Z, a-z, 0-9, _ and -")
            size += file.write(separator * bool(count) + write(custom_id, body))
            count += 1
        if not count:
            raise ValueError("a shipment has at least one line")
        file.flush()
        yield file, size, count
