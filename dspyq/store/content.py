"""Content in Redis: the one place that every input, answer, failure and remembered reply passes, in and out.

Content is stored as it is. What is to store it in another form, as sealed, replaces the codec, and finds with each
value its kind and its owner: a value that was moved to another owner need not be taken.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from dspyq.core.runtime import per_runtime
from dspyq.core.tolerated import tolerate

#: Stands for a result that cannot be read: no JSON, so that every reader takes it for one that another program wrote.
_NO_RESULT = b"unreadable"


class Kind(StrEnum):
    """A kind of content, each with its owner.

    ``JOB`` is the body of a task's message: inputs, links, chain and chord; its owner is its headers, by ``job_owner``.
    ``RESULT`` is an answer or a failure; its owner is the task id. ``REPLY`` is a provider's reply; its owner is the
    task id and the key of the call. ``UNSCORED`` is an answer with its inputs that waits for an experiment's scores;
    its owner is the task id. ``PART`` is a result on its way to a chord's body; it holds its task id itself.
    ``STREAM`` is a piece of an answer while it comes; its owner is the task id.
    ``ROW`` is a question and its answer that an experiment keeps for exports; its owner is the task id.
    """

    JOB = "job"
    RESULT = "result"
    REPLY = "reply"
    UNSCORED = "unscored"
    PART = "part"
    ROW = "row"
    STREAM = "stream"


_RESULT = Kind.RESULT  # an enumeration's own attribute is slow to reach


class UnreadableContent(ValueError):
    """It was stored in a form that is unknown here, was changed, or is another owner's."""


class Codec(Protocol):
    """The form of content in Redis."""

    def encode(self, kind: Kind, owner: str, value: bytes) -> bytes:
        """Return what is stored."""

    def decode(self, kind: Kind, owner: str, stored: bytes) -> bytes:
        """Return what was encoded.

        Raises:
            UnreadableContent: If this codec did not write it for this owner.
        """


class Plain:
    """Content as it is."""

    def encode(self, kind: Kind, owner: str, value: bytes) -> bytes:
        """Return the value."""
        del kind, owner
        return value

    def decode(self, kind: Kind, owner: str, stored: bytes) -> bytes:
        """Return what is stored."""
        del kind, owner
        return stored


def encode(kind: Kind, owner: str, value: bytes) -> bytes:
    """Return the stored form of a value."""
    return process_codec().encode(kind, owner, value)


def decode(kind: Kind, owner: str, stored: bytes) -> bytes:
    """Return a value from its stored form.

    Raises:
        UnreadableContent: If it cannot be read, or is another owner's.
    """
    return process_codec().decode(kind, owner, stored)


def decode_result(task_id: str, stored: bytes) -> bytes:
    """Return a task's result from its stored form; what is no result where it cannot be read."""
    try:
        return process_codec().decode(_RESULT, task_id, stored)
    except UnreadableContent as error:
        tolerate("result", error)
        return _NO_RESULT


@per_runtime(is_kept=True)
def process_codec() -> Codec:
    """Return the codec of the configuration."""
    return Plain()
