"""Versions of variants: those that this process answers, and the queues in which jobs of others wait.

A job that a worker of another version took is moved, once, to the queue of its version. Workers announce with their
beat the queues they take from, so that all processes can see if a version has a worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dspyq.core.runtime import per_runtime

#: Seconds after which an announcement is repeated, and seconds for which it holds.
ANNOUNCE_SECONDS = 2.0
SERVED_SECONDS = 10.0
#: Digits of a fingerprint that distinguish versions, as the scripts use it: 64 bits.
_FINGERPRINT_DIGITS = 16


def version_queue(queue: str, fingerprint: str) -> str:
    """Return the name of the queue in which jobs of one version wait."""
    return f"{queue}@{fingerprint[:_FINGERPRINT_DIGITS]}"


def base_queue(queue: str) -> str:
    """Return the queue that a version's queue belongs to; any other is its own."""
    base, at, digits = queue.rpartition("@")
    is_version = at and len(digits) == _FINGERPRINT_DIGITS and all(digit in "0123456789abcdef" for digit in digits)
    return base if is_version else queue


class Versions:
    """The versions that this process answers.

    Attributes:
        consumed: Returns the queues it takes from now; nothing is announced before it is set.
        waiting: The versions' queues, of any version, that held jobs at the last sweep.
    """

    def __init__(self) -> None:
        self.consumed: Callable[[], Iterable[str]] = tuple
        self.waiting: frozenset[str] = frozenset()
        self._of: dict[str, str] = {}
        self._bases: dict[str, str] = {}

    def serve(self, queue: str, fingerprint: str) -> None:
        """Answer jobs of this version of a queue's variant."""
        self._of[queue] = name = version_queue(queue, fingerprint)
        self._bases[name] = queue

    def announced(self) -> list[str]:
        """Return the queues to announce: for a variant's queue that of its version, else the queue itself."""
        return [self._of.get(queue, queue) for queue in self.consumed()]

    def with_jobs(self, queues: Iterable[str]) -> list[str]:
        """Return the queues of this process's versions of these queues that hold jobs."""
        return [self._of[queue] for queue in queues if self._of.get(queue) in self.waiting] if self.waiting else []

    def with_jobs_of(self, queue: str) -> str:
        """Return the queue of this process's version of one queue if it holds jobs; otherwise ``""``."""
        own = self._of.get(queue, "")
        return own if own in self.waiting else ""

    def base(self, queue: str) -> str:
        """Return the queue whose consumer takes from this queue."""
        return self._bases.get(queue, queue)


@per_runtime(is_of_part=True)
def process_versions() -> Versions:
    """Return this process's versions."""
    return Versions()
