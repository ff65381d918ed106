"""Content that is not taken: why, and how often in this process."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter, OrderedDict
from typing import Final, Literal

from dspyq.core.events import Event

logger = logging.getLogger("dspyq.sealing")

RefusalCause = Literal["unknown_key", "altered", "plain_text", "forgotten"]
CAUSES: Final[tuple[RefusalCause, ...]] = ("unknown_key", "altered", "plain_text", "forgotten")
#: How long an id of an unknown key is reported after it was last seen.
_REPORTED_SECONDS = 300.0
#: Unknown ids that are reported: a writer to Redis can invent others.
_MOST_UNKNOWN = 8
_SECONDS_BETWEEN_LINES = 1.0
_ID = re.compile(r"[a-z0-9]{8}")


class UnreadableContent(ValueError):
    """It was stored in a form that is unknown here, was changed, or is another owner's."""


class UnknownKey(UnreadableContent):
    """It is sealed with a key that this process does not have; one that has it can open it."""


class ContentRefusals:
    """Counts of what this process did not take, by cause, and ids of keys that it lacks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[RefusalCause] = Counter()
        self._unlogged: Counter[RefusalCause] = Counter()
        self._logged_at: dict[RefusalCause, float] = {}
        self._unknown: OrderedDict[str, float] = OrderedDict()

    def note(self, cause: RefusalCause, *, kind: str, key_id: str = "") -> None:
        """Count a refusal; log it, at most once a second for each cause."""
        now = time.monotonic()
        with self._lock:
            self._counts[cause] += 1
            self._unlogged[cause] += 1
            if cause == "unknown_key":
                self._unknown[shown_id(key_id)] = now
                self._unknown.move_to_end(shown_id(key_id))
                while len(self._unknown) > _MOST_UNKNOWN:
                    self._unknown.popitem(last=False)
            if now - self._logged_at.get(cause, float("-inf")) < _SECONDS_BETWEEN_LINES:
                return
            self._logged_at[cause] = now
            number = self._unlogged.pop(cause)
        logger.warning(Event("content_refused", cause=cause, kind=kind, key_id=shown_id(key_id), number=number))

    def counts(self) -> dict[RefusalCause, int]:
        """Return the counts since the process began."""
        with self._lock:
            return {cause: self._counts[cause] for cause in CAUSES}

    def unknown_keys(self) -> list[str]:
        """Return the ids of unknown keys that were seen in the last minutes."""
        now = time.monotonic()
        with self._lock:
            return sorted(each for each, at in self._unknown.items() if now - at < _REPORTED_SECONDS)


def shown_id(key_id: str) -> str:
    """Return a key's id for logs and metrics; one that no key of ours has is not shown."""
    return key_id if not key_id or _ID.fullmatch(key_id) else "invalid"


def refuse_unknown_key(kind: str, key_id: bytes) -> UnknownKey:
    """Count content whose key is not here; return its error."""
    refusals.note("unknown_key", kind=kind, key_id=key_id.decode("ascii", "replace"))
    return UnknownKey("it is sealed with a key that this process lacks: give it those of [encryption]")


#: Those of this process, of all its configurations.
refusals = ContentRefusals()
