"""An exposure: a call of an enrolled unit, as scripts and feedback tokens name it."""

from __future__ import annotations

from typing import NamedTuple


class Exposure(NamedTuple):
    """A call that an experiment counts.

    Attributes:
        program: The program's name.
        epoch: The experiment's start, as its state names it.
        arm: The variant that serves the call.
        unit_bucket: The unit's cluster, 0 to 1,023.
        question_bucket: The question's cluster, 0 to 1,023; the same in every arm.
        cell: The unit's bit in the bitmap that counts each unit once, 0 to 2^23 - 1.
        day: The day of the call, in days since 1970, UTC.
    """

    program: str
    epoch: str
    arm: str
    unit_bucket: int
    question_bucket: int
    cell: int
    day: int

    def stated(self) -> str:
        """Return its text for scripts, without the program, which they know."""
        return f"{self.epoch} {self.arm} {self.unit_bucket} {self.question_bucket} {self.cell} {self.day}"


def read_exposure(program: str, stated: str) -> Exposure | None:
    """Return the exposure that a text for scripts states; None for none, or one of another form."""
    epoch, arm, *numbers = stated.split(" ") if stated else ("", "")
    if len(numbers) != len(Exposure._fields) - 3 or not all(number.isdecimal() for number in numbers):
        return None
    return Exposure(program, epoch, arm, *map(int, numbers))
