"""Random ids by the hundred: the kernel is asked once for many, which takes as long as for one."""

from __future__ import annotations

import os
from collections.abc import Iterator

from dspyq.core.runtime import after_fork

_IDS_AT_ONCE = 256
_BYTES = 16
_DIGITS = 2 * _BYTES
#: The digits that a UUID of version 4 may have where its variant stands.
_VARIANTS = "89ab"


def hex_ids() -> Iterator[str]:
    """Yield random ids of 32 hexadecimal digits."""
    while True:
        yield from _draw()


def uuids() -> Iterator[str]:
    """Yield random UUIDs of version 4, as Celery's ids of tasks are."""
    return map(as_uuid, hex_ids())


def new_id() -> str:
    """Return a random id of 32 hexadecimal digits."""
    try:
        return _drawn.pop()  # atomic, as is the extension below
    except IndexError:
        first, *others = _draw()
        _drawn.extend(others)
        return first


def as_uuid(digits: str) -> str:
    """Return 32 random hexadecimal digits in the form of a UUID of version 4."""
    variant = _VARIANTS[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _draw() -> list[str]:
    digits = os.urandom(_IDS_AT_ONCE * _BYTES).hex()
    return [digits[start : start + _DIGITS] for start in range(0, len(digits), _DIGITS)]


_drawn: list[str] = []
# A forked child would give out its parent's.
after_fork(_drawn.clear)
