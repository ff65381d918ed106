"""An exposure: a call of an enrolled unit, as scripts and feedback tokens name it."""

from __future__ import annotations

from typing import NamedTuple

from dspyq.experiments.placement import bucket_of_question

#: Questions whose cluster a process keeps for each state of an experiment: popular ones come back.
_QUESTIONS_KEPT = 4_096


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


class QuestionBuckets:
    """Clusters of questions, by the hash that their answers are looked up by; safe between threads.

    Args:
        salt: The experiment's.
    """

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._kept: dict[str, int] = {}

    def of(self, input_hash: str, canonical_inputs: bytes) -> int:
        """Return a question's cluster, 0 to 1,023."""
        bucket = self._kept.get(input_hash)
        if bucket is None:
            if len(self._kept) >= _QUESTIONS_KEPT:
                self._kept.clear()
            bucket = self._kept[input_hash] = bucket_of_question(self._salt, canonical_inputs)
        return bucket


class ExposedUnit(NamedTuple):
    """A unit whose calls an experiment counts.

    Attributes:
        program: As of ``Exposure``, like all that follow but the last.
        epoch: As above.
        arm: As above.
        unit_bucket: As above.
        cell: As above.
        day: As above.
        questions: Clusters of questions.
    """

    program: str
    epoch: str
    arm: str
    unit_bucket: int
    cell: int
    day: int
    questions: QuestionBuckets

    def asking(self, input_hash: str, canonical_inputs: bytes) -> Exposure:
        """Return a call of it."""
        program, epoch, arm, unit_bucket, cell, day, questions = self
        question_bucket = questions.of(input_hash, canonical_inputs)
        # A named tuple's own way takes twice as long, and every call comes by here.
        return tuple.__new__(Exposure, (program, epoch, arm, unit_bucket, question_bucket, cell, day))
