"""Shipments: lines of a lane that become one batch at their provider."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

import orjson

#: ``filling``: lines are still added. ``filled``: the file is to be uploaded. ``uploaded``: the batch is to be created.
#: ``submitting``: the creation was begun, and its reply not seen. ``submitted``: the batch has an id. ``collecting``:
#: it has ended, and its outcomes land. ``closing``: all have landed, and a second batch of this name is looked for.
ShipmentState = Literal["filling", "filled", "uploaded", "submitting", "submitted", "collecting", "closing"]


@dataclass(frozen=True, slots=True)
class Shipment:
    """A shipment.

    Attributes:
        name: Its name, which its file and its batch at the provider carry.
        state: The step that it waits for.
        lines: How many lines it has.
        size_bytes: Their size as they are sent.
        filled_at: When its last line was added, by Redis's clock, as all times.
        uploads: How many uploads of its file were begun.
        file_id: The provider's file.
        batch_id: The provider's batch.
        tried_at: When the latest creation was begun.
        tries: How many creations were begun and not refused.
        refusals: How often the provider refused it.
        dead_batches: Batches of its name that are known and charged nothing any more.
        submitted_at: When its batch was found to be created.
        is_accepted: Whether the provider has accepted its lines; then their requests are dropped.
        ended_at: When its batch was found to have ended.
        remote_state: The provider's word for that.
        not_before: When the next step may be taken.
        failures: How often the step that it waits for has failed in a row.
        answered: Lines that landed with a reply.
        failed: Lines that landed with a lasting failure.
        unanswered: Lines that landed without an outcome.
        depth: How often it was split.
        batches: The batches whose lines it holds, the first 20 of them.
    """

    name: str
    state: ShipmentState = "filling"
    lines: int = 0
    size_bytes: int = 0
    filled_at: float = 0.0
    uploads: int = 0
    file_id: str = ""
    batch_id: str = ""
    tried_at: float = 0.0
    tries: int = 0
    refusals: int = 0
    dead_batches: tuple[str, ...] = ()
    submitted_at: float = 0.0
    is_accepted: bool = False
    ended_at: float = 0.0
    remote_state: str = ""
    not_before: float = 0.0
    failures: int = 0
    answered: int = 0
    failed: int = 0
    unanswered: int = 0
    depth: int = 0
    batches: tuple[str, ...] = ()
    _others: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return it as the journal keeps it."""
        kept = asdict(self)
        return orjson.dumps(kept.pop("_others") | kept)

    @classmethod
    def from_json(cls, text: bytes) -> Shipment:
        """Return what ``to_json`` kept; what another version added stays with it."""
        kept: dict[str, Any] = orjson.loads(text)
        known = {each.name for each in fields(cls)} - {"_others"}
        own = {name: value for name, value in kept.items() if name in known}
        for name in ("dead_batches", "batches"):
            own[name] = tuple(own.get(name) or ())  # Redis writes an empty list as an object
        own["_others"] = {name: value for name, value in kept.items() if name not in known}
        return cls(**own)

    @property
    def was_uncertain(self) -> bool:
        """True if it was once unknown whether its batch exists: there may be two."""
        return self.tries > 1

    def at(self, state: ShipmentState, **changes: Any) -> Shipment:
        """Return it in another state."""
        return replace(self, state=state, **changes)
