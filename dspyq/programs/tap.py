"""Text of a run's model calls, by output field, on its way into the run's stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from dspyq.programs.repair import readable_text
from dspyq.programs.reply_fields.splitter import Emit, Splitter
from dspyq.streaming.run_log import RunLog

MakeSplitter = Callable[[Collection[str], Emit], Splitter]
_HIGH_SURROGATES = ("\ud800", "\udbff")


class Tap:
    """The stream of one run, written by the calls of all its threads.

    A field is one call's at a time: the text of another call takes its place only once that call has ended.

    Args:
        log: The run's log.
    """

    def __init__(self, log: RunLog) -> None:
        self.log = log
        self._speakers: dict[str, CallTap] = {}
        self._subjects: set[str] = set()
        self._lock = threading.Lock()

    @property
    def is_lost(self) -> bool:
        """True once the run has lost its job."""
        return self.log.is_lost

    def status(self, subject: str, text: str) -> None:
        """Add a state of the run."""
        self.log.add("status", subject, text)

    def status_once(self, subject: str, text: str) -> None:
        """Add a state of the run, unless one of its subject was added before."""
        if subject not in self._subjects:
            self._subjects.add(subject)
            self.status(subject, text)

    def emit(self, call: CallTap, field: str, text: str) -> None:
        """Add a piece of a field's text, if the field is the call's."""
        with self._lock:
            before = self._speakers.get(field)
            if before is not call:
                if field in call.muted:
                    return
                if before is not None and before.is_open:
                    call.muted.add(field)
                    return
                if before is not None:
                    self.log.add("reset", field, "again")
                self._speakers[field] = call
            self.log.add("delta", field, text)

    def void(self, call: CallTap) -> None:
        """Take back the text of a call that failed."""
        with self._lock:
            for field in [field for field, speaker in self._speakers.items() if speaker is call]:
                del self._speakers[field]
                self.log.add("reset", field, "retry")


class CallTap:
    """Text of one attempt of one call.

    Attributes:
        is_open: Whether more of it may come.
        muted: The fields that were another call's when this one came to them.
    """

    def __init__(self, tap: Tap, make_splitter: MakeSplitter, fields: Collection[str]) -> None:
        self._tap = tap
        self._splitter = make_splitter(fields, lambda field, text: tap.emit(self, field, text))
        self._half = ""  # of a surrogate pair
        self.is_open = True
        self.muted: set[str] = set()

    def text(self, piece: str) -> None:
        """Take a piece of the reply."""
        if self._half or not piece.isascii():
            piece, self._half = self._half + piece, ""
            if piece and _HIGH_SURROGATES[0] <= piece[-1] <= _HIGH_SURROGATES[1]:
                piece, self._half = piece[:-1], piece[-1]
            piece = readable_text(piece)
        self._splitter.feed(piece)

    def end(self) -> None:
        """Take note that the reply is whole."""
        self._splitter.end()
        self.is_open = False

    def fail(self) -> None:
        """Take note that the attempt failed: its text is void."""
        self.is_open = False
        self._tap.void(self)
