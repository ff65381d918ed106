"""Text of one run on its way into the log of its task."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from dspyq.config.secrets import process_secrets
from dspyq.store.keys import stream_key
from dspyq.store.scripts import Script, Step
from dspyq.streaming.frames import Frame, FrameKind, write_entry

#: Most bytes of a log; text beyond it comes with the answer.
MOST_BYTES: Final = 256 * 1024
#: Replies of ``push.lua``, and its offset of a run's first entry.
_LOST, _IS_ELSEWHERE = -1, -2
_AT_THE_END = -1
_NOTHING = Frame("delta", "", "")


class RunLog:
    """One run's part of its task's log. Any thread may add to it; one at a time may send it.

    Args:
        task_id: The task.
        fence: The run's number.
        wake: Called when a frame was added that is to be sent at once.
        tenant: The tenant whose question it is; empty for none.

    Attributes:
        is_lost: Whether the run has lost its job: it was cancelled, or another run has it.
    """

    def __init__(self, task_id: str, fence: str, wake: Callable[[], object], tenant: str = "") -> None:
        self.task_id = task_id
        self.fence = fence
        self.is_lost = False
        self._wake = wake
        self._tenant = tenant
        self._unwritten: deque[Frame] = deque()
        self._added: deque[Frame] = deque([Frame("run", "", fence)])
        self._has_spoken = False
        self._held = _NOTHING  # a delta whose text may begin a secret
        self._unsent = bytearray()
        self._sending = b""
        self._offset = _AT_THE_END
        self._is_mute = False
        self._at_loss: set[Callable[[], object]] = set()
        self._lock = threading.Lock()

    def add(self, kind: FrameKind, field: str, text: str) -> None:
        """Add a frame."""
        self._added.append(Frame(kind, field, text))
        if kind == "delta" and not self._has_spoken:
            self._has_spoken = True
            self._wake()

    def step(self, push: Script, fence: str, *, is_last: bool = False, looks: bool = False) -> Step[Any] | None:
        """Return the step that sends what was added; None if nothing was, and no loss is looked for.

        Args:
            push: The script ``push.lua``.
            fence: The fence to check in the log's Redis; empty where jobs live elsewhere.
            is_last: Whether nothing follows.
            looks: Whether to look for a loss where nothing was added.

        Raises:
            ConfigurationError: If the key of the run's tenant is sealed under a key that is not here.
            redis.RedisError: If that key cannot be read: then the same is sent by a later step.
        """
        if self.is_lost:
            return None
        self._write_added(is_last=is_last)
        if not self._sending:  # else its reply was lost: the same bytes again, which are added once
            self._sending, self._unsent = bytes(self._unsent), bytearray()
        entries = self._sending
        if not (entries or looks):
            return None
        offset = self._offset if entries or not self._is_mute else _AT_THE_END
        return push.step(
            self._sent, (stream_key(self.task_id),), id=self.task_id, fence=fence, offset=offset, entries=entries
        )

    def mute(self) -> None:
        """Send no more text: it comes with the answer."""
        self._is_mute = True

    def lose(self) -> None:
        """Take note that the run has lost its job, and end what waits for the provider."""
        with self._lock:  # also during the acts: none of them may come behind not_at_loss
            self.is_lost = True
            for act in self._at_loss:
                act()
            self._at_loss.clear()

    def at_loss(self, act: Callable[[], object]) -> None:
        """Have something done once the run has lost its job; at once if it has."""
        with self._lock:
            if not self.is_lost:
                self._at_loss.add(act)
                return
        act()

    def not_at_loss(self, act: Callable[[], object]) -> None:
        """Take that back."""
        with self._lock:
            self._at_loss.discard(act)

    def _sent(self, reply: Any) -> None:
        """Take the reply of Redis to a step."""
        length = int(reply)
        if length == _LOST:
            self.lose()
        elif length == _IS_ELSEWHERE:
            self._is_mute = True
        else:
            self._offset = length
        self._sending = b""

    def _write_added(self, *, is_last: bool) -> None:
        """Write what was added since as entries, up to the most bytes of a log."""
        self._unwritten.extend(self._scrubbed(is_last=is_last))
        while self._unwritten:
            entry = b"" if self._is_mute else write_entry(self.task_id, self._unwritten[0], self._tenant)
            self._unwritten.popleft()  # once it is written: the key of its tenant may have to be read
            if self._is_mute:
                continue
            if max(self._offset, 0) + len(self._sending) + len(self._unsent) + len(entry) > MOST_BYTES:
                self._is_mute = True
                entry = write_entry(self.task_id, Frame("status", "stream", "truncated"), self._tenant)
            self._unsent += entry

    def _scrubbed(self, *, is_last: bool) -> Iterator[Frame]:
        """Yield what was added without secrets: text that may begin one is held back until more of its field comes."""
        for frame in self._merged():
            is_of_held = frame.field == self._held.field and frame.kind in {"delta", "reset"}
            if not is_of_held:
                yield from self._release()
            if frame.kind == "delta":
                yield from self._scrub(frame)
            else:
                self._held = _NOTHING
                yield frame
        if is_last:
            yield from self._release()

    def _scrub(self, delta: Frame) -> Iterator[Frame]:
        """Yield a delta behind the text of its field that was held back, without secrets and the start of one."""
        secrets = process_secrets()
        text = secrets.scrub_answer(self._held.text + delta.text)
        end = len(text) - secrets.count_begun(text)
        self._held = delta._replace(text=text[end:])
        if end:
            yield delta._replace(text=text[:end])

    def _release(self) -> Iterator[Frame]:
        """Yield the text that was held back: nothing of its field follows it."""
        held, self._held = self._held, _NOTHING
        if held.text:
            yield held

    def _merged(self) -> Iterator[Frame]:
        """Yield what was added, the deltas of one field that follow each other as one."""
        field = ""
        pieces: list[str] = []
        while self._added:
            frame = self._added.popleft()
            if pieces and (frame.kind != "delta" or frame.field != field):
                yield Frame("delta", field, "".join(pieces))
                pieces.clear()
            if frame.kind == "delta":
                field = frame.field
                pieces.append(frame.text)
            else:
                yield frame
        if pieces:
            yield Frame("delta", field, "".join(pieces))
