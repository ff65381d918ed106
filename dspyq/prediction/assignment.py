"""Assignment of units to variants: a pure function, the same on every host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from dspyq.config.programs import Program
    from dspyq.config.variants import Variant


_RESOLUTION_BITS = 53  # all that a float between 0 and 1 holds


def assign(program: Program, unit: str | bytes) -> Variant:
    """Return the variant of a unit.

    The unit is hashed, with the program's salt, to a point of the line from 0 to 1. The second variant owns a range at
    the line's start, the third one at its end, the fourth one after the second's, and so on; the first, the control,
    owns what they leave between them. So when a variant's weight changes at the control's expense, only units between
    these two move, as long as no further variant lies between them; with up to three variants none does.

    Args:
        program: The program with its variants and their weights.
        unit: What is assigned and keeps its variant: a user, a session, or the inputs themselves, in UTF-8.
    """
    control, *others = program.variants.values()
    if not others:
        return control
    point = _point(program.salt, unit)
    total = control.weight + sum(variant.weight for variant in others)
    low, high = 0.0, 1.0
    for index, variant in enumerate(others):
        share = variant.weight / total
        if index % 2 == 0:
            low += share
            if point < low:
                return variant
        else:
            high -= share
            if point >= high:
                return variant
    return control


def _point(salt: str, unit: str | bytes) -> float:
    encoded = unit if isinstance(unit, bytes) else unit.encode("utf-8", "surrogatepass")
    digest = blake3(salt.encode("utf-8", "surrogatepass") + b"\0" + encoded).digest(length=8)
    return (int.from_bytes(digest, "big") >> (64 - _RESOLUTION_BITS)) / (1 << _RESOLUTION_BITS)
