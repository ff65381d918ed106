"""Chunks of a stream for one listener: made from the frames of its log, and at its end from the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dspyq.streaming.frames import Frame

ChunkKind = Literal["delta", "reset", "status", "completed"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a stream.

    Attributes:
        kind: ``delta``: a further piece of an output field's text; ``reset``: the text of that field so far is void;
            ``status``: the state of the run; ``completed``: the answer is there.
        field: The output field. Of a status its subject: ``run``, ``tool``, ``stream``.
        text: The piece of text. Of a reset the reason; of a status the run's state, the tool's name, or the reason why
            text is not streamed.
        offset: The place in the task's log behind it, in bytes; that of the chunk before where it is in no log.
    """

    kind: ChunkKind
    field: str = ""
    text: str = ""
    offset: int = 0


class ListenerView:
    """Texts of the fields as one listener has them so far.

    At the end they are those of the answer: what is missing comes then, and a text that differs comes anew.
    """

    __slots__ = ("_offset", "_texts")

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._offset = 0

    def chunks_of(self, frame: Frame, offset: int) -> list[Chunk]:
        """Return what the listener gets for a frame of the log."""
        self._offset = offset
        kind, field, text = frame
        if kind == "run":
            voided = [Chunk("reset", name, "rerun", offset) for name in self._texts]
            self._texts.clear()
            return [*voided, Chunk("status", "run", "running", offset)]
        if kind == "status":
            return [Chunk("status", field, text, offset)]
        if kind == "delta":
            self._texts.setdefault(field, []).append(text)
            return [Chunk("delta", field, text, offset)]
        return [Chunk("reset", field, text, offset)] if self._texts.pop(field, None) else []

    def complete(self, outputs: Mapping[str, Any], fields: Iterable[str]) -> Iterator[Chunk]:
        """Yield what the listener still gets once the answer is there.

        Args:
            outputs: The outputs of the answer.
            fields: The fields whose texts are streamed.
        """
        for field in dict.fromkeys((*fields, *self._texts)):
            yield from self._complete_field(field, outputs.get(field))
        yield Chunk("completed", offset=self._offset)

    def _complete_field(self, field: str, value: Any) -> Iterator[Chunk]:
        text = value if isinstance(value, str) else ""
        text_so_far = "".join(self._texts.get(field, ()))
        if not text.startswith(text_so_far):
            yield Chunk("reset", field, "answer", self._offset)
            text_so_far = ""
        if len(text_so_far) < len(text):
            yield Chunk("delta", field, text[len(text_so_far) :], self._offset)
