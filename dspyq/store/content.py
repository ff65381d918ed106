"""Content in Redis and files: the one place that inputs, answers, failures and remembered replies pass, in and out.

Without ``[encryption]`` content is stored as it is. With it a codec seals what belongs to programs that ask for it
(``dspyq.sealing``), each value with its kind and its owner: one that was moved to another owner does not open.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from dspyq.config.settings import get_settings
from dspyq.core.runtime import per_runtime
from dspyq.core.tolerated import tolerate
from dspyq.sealing.keyring import is_envelope, key_id_of
from dspyq.sealing.refusals import UnknownKey, UnreadableContent, refuse_unknown_key

__all__ = ["Codec", "Kind", "Plain", "UnknownKey", "UnreadableContent", "decode", "encode", "process_codec"]

#: Stands for a result that cannot be read: no JSON, so that every reader takes it for one that another program wrote.
_NO_RESULT = b"unreadable"
#: The same for one that is sealed with a key that this process lacks.
RESULT_OF_UNKNOWN_KEY = b"of an unknown key"


class Kind(StrEnum):
    """A kind of content, each with its owner.

    ``JOB`` is the body of a task's message: inputs, links, chain and chord; its owner is its headers, by ``job_owner``.
    ``RESULT`` is an answer or a failure; its owner is the task id. ``REPLY`` is a provider's reply; its owner is the
    task id and the key of the call. ``UNSCORED`` is an answer with its inputs that waits for an experiment's scores;
    its owner is the task id. ``PART`` is a result on its way to a chord's body; its owner is the chord, and it holds
    its task id itself. ``REQUEST`` is a model call that waits for its provider's batch interface; its owner is its name
    there. ``STREAM`` is a piece of an answer while it comes; its owner is the task id. ``COMMENT`` is what a caller
    wrote on an answer; its owner is the call. ``ROW`` is a question and its answer that an experiment keeps for
    exports; its owner is the task id. ``LINE`` is a line of a batch's output that waits for its turn; its owner is the
    batch and the line's number. ``SPOOL`` is a piece of a batch's input that is kept; its owner is the file and the
    piece's number.
    """

    JOB = "job"
    RESULT = "result"
    REPLY = "reply"
    REQUEST = "request"
    UNSCORED = "unscored"
    PART = "part"
    ROW = "row"
    STREAM = "stream"
    LINE = "line"
    SPOOL = "spool"
    COMMENT = "comment"


_RESULT = Kind.RESULT  # an enumeration's own attribute is slow to reach


class Codec(Protocol):
    """The form of content in Redis."""

    def encode(self, kind: Kind, owner: str, value: bytes, *, program: str = "", tenant: str = "") -> bytes:
        """Return what is stored."""

    def decode(self, kind: Kind, owner: str, stored: bytes, *, program: str = "") -> bytes:
        """Return what was encoded.

        Raises:
            UnreadableContent: If this codec did not write it for this owner.
        """


class Plain:
    """Content as it is."""

    def encode(self, kind: Kind, owner: str, value: bytes, *, program: str = "", tenant: str = "") -> bytes:
        """Return the value."""
        del kind, owner, program, tenant
        return value

    def decode(self, kind: Kind, owner: str, stored: bytes, *, program: str = "") -> bytes:
        """Return what is stored.

        Raises:
            UnknownKey: If it is sealed.
        """
        del owner, program
        if is_envelope(stored):
            raise refuse_unknown_key(kind, key_id_of(stored))
        return stored


def encode(kind: Kind, owner: str, value: bytes, *, program: str = "", tenant: str = "") -> bytes:
    """Return the stored form of a value.

    Args:
        kind: Its kind.
        owner: Its owner.
        value: The value.
        program: The program that it belongs to; empty where that is not known.
        tenant: The tenant that it belongs to; empty for none.
    """
    return process_codec().encode(kind, owner, value, program=program, tenant=tenant)


def decode(kind: Kind, owner: str, stored: bytes, *, program: str = "") -> bytes:
    """Return a value from its stored form.

    Args:
        kind: Its kind.
        owner: Its owner.
        stored: The stored form.
        program: The program that it is to belong to; empty where that is not known.

    Raises:
        UnknownKey: If it is sealed with a key that this process lacks.
        UnreadableContent: If it cannot be read, or is another owner's.
    """
    return process_codec().decode(kind, owner, stored, program=program)


def decode_result(task_id: str, stored: bytes) -> bytes:
    """Return a task's result from its stored form; what is no result where it cannot be read."""
    try:
        return process_codec().decode(_RESULT, task_id, stored)
    except UnknownKey as error:
        tolerate("result", error)
        return RESULT_OF_UNKNOWN_KEY
    except UnreadableContent as error:
        tolerate("result", error)
        return _NO_RESULT


@per_runtime(is_kept=True)
def process_codec() -> Codec:
    """Return the codec of the configuration.

    Raises:
        ConfigurationError: If its keys cannot be read.
    """
    section = get_settings().encryption
    if not section.is_on:
        return Plain()
    from dspyq.store.sealed import make_codec  # noqa: PLC0415 - loads cryptography, which only encryption needs

    return make_codec(get_settings())
