"""The log of a task's stream: entries, one for each frame, in order over all its runs.

An entry is the length of its content in decimal digits, a line feed, and the content as ``dspyq.store.content`` stores
it: a frame as a JSON list of kind, field and text. The end of an entry, in bytes from the start of the log, is its
offset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import orjson

from dspyq.store import content

FrameKind = Literal["run", "delta", "reset", "status"]
_KINDS: frozenset[str] = frozenset({"run", "delta", "reset", "status"})


class Frame(NamedTuple):
    """A piece of a stream.

    Attributes:
        kind: ``run``: a run begins, and the texts of earlier runs are void; ``delta``: a further piece of a field's
            text; ``reset``: the text of a field is void; ``status``: the state of the run.
        field: The output field; of a status what it is about.
        text: The piece; of a reset the reason; of a run its fence, which makes its entry unlike all others.
    """

    kind: FrameKind
    field: str
    text: str


def write_entry(task_id: str, frame: Frame, tenant: str = "") -> bytes:
    """Return the entry of a frame.

    Args:
        task_id: The task.
        frame: The frame.
        tenant: The tenant whose question it is, with whose key the entry is sealed; empty for none.

    Raises:
        ConfigurationError: If the tenant's key is sealed under a key that is not here.
        redis.RedisError: If the tenant's key cannot be read.
    """
    stored = content.encode(content.Kind.STREAM, task_id, orjson.dumps(list(frame)), tenant=tenant)
    return b"%d\n%b" % (len(stored), stored)


def read_entries(task_id: str, log: bytes | bytearray, start: int) -> Iterator[tuple[Frame, int]]:
    """Yield the frames of a log from an offset on, each with its own offset; what is no whole entry ends it.

    Frames of a kind that is unknown here, of a newer worker, are passed over.

    Raises:
        UnreadableContent: If the content of one cannot be read, or is another task's.
        ValueError: If it is no entry.
    """
    while (end_of_length := log.find(b"\n", start)) >= 0:
        begin = end_of_length + 1
        end = begin + int(log[start:end_of_length])
        if end > len(log):
            return
        parts = orjson.loads(content.decode(content.Kind.STREAM, task_id, bytes(log[begin:end])))
        start = end
        if parts[0] in _KINDS:
            yield Frame(*parts[:3]), end
