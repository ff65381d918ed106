"""Journal of a model's lane in Redis: its lines, its shipments, and the lease of the worker that runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast

import redis

from dspyq.core.tolerated import tolerate
from dspyq.guards.call_journal import record_field
from dspyq.guards.call_records import JobRun
from dspyq.lane.disk import wait_for_disk
from dspyq.lane.line import LaneLine, attempt_id_of
from dspyq.lane.shipment import Shipment
from dspyq.store import content
from dspyq.store.keys import lane_key
from dspyq.store.scripts import Script, Step, load_script, run_together

_LINES_AT_ONCE = 500
_SCRIPTS = (
    "cancel", "close", "deposit", "end_lease", "fill", "gone", "land", "lease", "look", "look_open", "rejoin", "save",
    "split", "take_back",
)  # fmt: skip


class LaneLost(Exception):
    """Another worker runs the lane by now; nothing was changed."""


class LaneLook(NamedTuple):
    """State of a call in the lane and of its job.

    Attributes:
        is_in_lane: Whether it waits in the lane.
        is_awaited: Whether a caller waits for it who is no batch.
        is_live: Whether its job's calls are to be made live.
        rounds: How often its job fell asleep.
        strays: In how many rounds its program asked nothing again of what it had asked before.
        lines: How many lines its job waits for.
        begun_waits: Whether a row of its batch that has begun waits for money.
        salvaged: A reply to it that was read again from the provider.
    """

    is_in_lane: bool
    is_awaited: bool
    is_live: bool
    rounds: int
    strays: int
    lines: int
    begun_waits: bool
    salvaged: bytes | None


class OpenLines(NamedTuple):
    """Lines that are in no shipment.

    Attributes:
        number: How many there are.
        oldest_seconds: Seconds since the first of them came.
        latest_seconds: Seconds since the last of them came.
        now: The time by Redis's clock.
        all_lines: How many lines the lane has, shipped ones included.
        unpaid_rows: How many rows wait for money.
    """

    number: int
    oldest_seconds: float
    latest_seconds: float
    now: float
    all_lines: int
    unpaid_rows: int


class Filled(NamedTuple):
    """Result of moving a part of the open lines into a shipment.

    Attributes:
        is_done: Whether the shipment is full, or no line is left.
        lines: How many lines it has.
        size_bytes: Their size.
        gone: Custom ids of lines whose job is gone: they are in no shipment.
    """

    is_done: bool
    lines: int
    size_bytes: int
    gone: list[str]


class LaneJournal:
    """The journal of one model's lane.

    Args:
        client: The Redis of jobs.
        model: The model's table.
        token: Names this worker as the one that runs the lane.

    Attributes:
        model: The model's table.
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis, model: str, token: str = "") -> None:
        self.model = model
        self.client = self._client = client
        self._token = token
        self._scripts = {name: load_script(client, "dspyq.lane", name) for name in _SCRIPTS}

    def look(self, job: JobRun, custom_id: str, call_key: str) -> LaneLook:
        """Look at a call before it is left to the lane."""
        reply = self._script("look")(
            model=self.model, task=job.task_id, id=custom_id, call_key=call_key, batch=job.batch
        )
        is_there, is_awaited, is_live, *counts, salvaged = reply
        if salvaged:
            try:
                salvaged = content.decode(content.Kind.REPLY, call_key, salvaged)
            except content.UnreadableContent as error:  # the call is paid anew, as of remembered replies
                tolerate("reply", error)
                salvaged = None
        rounds, strays, lines, begun_waits = map(int, counts)
        is_any = bool(is_there), bool(is_awaited), bool(is_live)
        return LaneLook(*is_any, rounds, strays, lines, bool(begun_waits), salvaged or None)

    def deposit(self, custom_id: str, line: LaneLine, body: bytes) -> Literal["there", "gone", "landed"]:
        """Put a line into the lane, unless its job is gone, or it has landed."""
        sealed = content.encode(content.Kind.REQUEST, custom_id, body, program=line.program, tenant=line.tenant)
        known = {name: getattr(line, name) for name in ("task", "batch", "version", "bound")}
        known["record"] = record_field(attempt_id_of(line.variant, custom_id))
        reply = self._script("deposit")(model=self.model, id=custom_id, line=line.to_json(), body=sealed, **known)
        return "there" if int(reply) >= 0 else "gone" if int(reply) == -1 else "landed"

    def rejoin(self, task_id: str) -> None:
        """Have a job that was put anew wait for a line that its earlier runs left."""
        self._script("rejoin")(task=task_id)

    def lease(self, seconds: float) -> bool:
        """Become the worker that runs the lane, or stay it; return False if another one is."""
        return bool(self._script("lease")(model=self.model, token=self._token, milliseconds=round(seconds * 1000)))

    def release_lease(self) -> None:
        """Leave the lane to other workers at once."""
        self._script("end_lease")(model=self.model, token=self._token)

    def open_lines(self) -> OpenLines:
        """Return the lines that are in no shipment, as numbers."""
        number, oldest, latest, now, every, unpaid = self._script("look_open")(model=self.model)
        return OpenLines(int(number), float(oldest), float(latest), float(now), int(every), int(unpaid))

    def shipments(self) -> list[Shipment]:
        """Return the shipments that are not closed, the oldest first."""
        stored = cast("dict[bytes, bytes]", self._client.hgetall(self._key("shipments")))
        return sorted(map(Shipment.from_json, stored.values()), key=lambda one: (one.filled_at or 9e18, one.name))

    def fill(self, name: str, most_lines: int, most_bytes: int, overhead_bytes: int) -> Filled:
        """Move some hundred open lines into a shipment, which is begun where there is none.

        Raises:
            LaneLost: If another worker runs the lane.
        """
        reply = self._script("fill")(
            model=self.model,
            token=self._token,
            name=name,
            limit=_LINES_AT_ONCE,
            most_lines=most_lines,
            most_bytes=most_bytes,
            overhead=overhead_bytes,
        )
        if not reply:
            raise LaneLost
        is_done, lines, size_bytes, *gone = reply
        return Filled(bool(is_done), int(lines), int(size_bytes), [one.decode() for one in gone])

    def first_open(self) -> dict[str, LaneLine]:
        """Return the first hundreds of open lines."""
        ids = cast("list[bytes]", self._client.zrange(self._key("open"), 0, _LINES_AT_ONCE - 1))
        return self.lines([one.decode() for one in ids])

    def gone_lines(self, start: int) -> tuple[int, list[str]]:
        """Look for open lines whose job is gone, from one on; return how many were looked at, and those ids."""
        looked_at, *gone = self._script("gone")(model=self.model, first=start, limit=_LINES_AT_ONCE)
        return int(looked_at), [one.decode() for one in gone]

    def save(self, shipment: Shipment) -> Shipment:
        """Save a shipment's next step, before it is taken; return the shipment.

        Raises:
            LaneLost: If another worker runs the lane.
        """
        kept = shipment.to_json()
        if not self._script("save")(model=self.model, token=self._token, name=shipment.name, shipment=kept):
            raise LaneLost
        return shipment

    def save_for_certain(self, shipment: Shipment) -> Shipment:
        """Save a shipment's next step, and wait until it is on Redis's disk; return the shipment.

        Raises:
            LaneLost: If another worker runs the lane, or a Redis that restarted meanwhile has lost what was saved.
        """
        self.save(shipment)
        self.sync()
        if self._client.hget(self._key("shipments"), shipment.name) != shipment.to_json():
            raise LaneLost
        return shipment

    def has_lines_left(self, name: str) -> bool:
        """Return True if lines of a shipment have not landed, for all that Redis has on its disk."""
        self.sync()
        return any(self.lines(ids) for ids in self.all_ids_of(name))

    def sync(self) -> None:
        """Wait for the disk; see ``wait_for_disk``."""
        wait_for_disk(self._client, ("SET", self._key("synced"), self._token, "EX", 60))

    def ids_of(self, name: str, start: int = 0) -> list[str]:
        """Return some hundred custom ids of a shipment, from one on, in the order of its file."""
        found = self._client.lrange(self._key(f"shipped:{name}"), start, start + _LINES_AT_ONCE - 1)
        return [one.decode() for one in cast("list[bytes]", found)]

    def all_ids_of(self, name: str) -> Iterator[list[str]]:
        """Yield all custom ids of a shipment, some hundred at a time."""
        start = 0
        while ids := self.ids_of(name, start):
            yield ids
            start += len(ids)

    def lines(self, custom_ids: Sequence[str]) -> dict[str, LaneLine]:
        """Return those of these lines that have not landed."""
        if not custom_ids:
            return {}
        found = cast("list[bytes | None]", self._client.hmget(self._key("lines"), list(custom_ids)))
        return {each: LaneLine.from_json(text) for each, text in zip(custom_ids, found, strict=True) if text}

    def bodies(self, name: str) -> Iterator[tuple[str, bytes]]:
        """Yield the lines of a shipment with their requests, some hundred in memory at a time.

        Raises:
            UnknownKey: If one is sealed with a key that this process lacks.
            UnreadableContent: If one cannot be read.
        """
        for custom_id, stored in self._stored_bodies(name):
            yield custom_id, content.decode(content.Kind.REQUEST, custom_id, stored)

    def unreadable_lines(self, name: str) -> list[str]:
        """Return the custom ids of a shipment whose requests are unreadable; those of an unknown key left out."""
        found = []
        for custom_id, stored in self._stored_bodies(name):
            try:
                content.decode(content.Kind.REQUEST, custom_id, stored)
            except content.UnknownKey:
                continue
            except content.UnreadableContent:  # counted and logged where it was refused
                found.append(custom_id)
        return found

    def _stored_bodies(self, name: str) -> Iterator[tuple[str, bytes]]:
        for ids in self.all_ids_of(name):
            found = cast("list[bytes | None]", self._client.hmget(self._key("bodies"), ids))
            yield from ((custom_id, body) for custom_id, body in zip(ids, found, strict=True) if body is not None)

    def drop_bodies(self, name: str) -> None:
        """Drop the requests of a shipment: their provider has them, and their programs can make them again."""
        for ids in self.all_ids_of(name):
            self._client.hdel(self._key("bodies"), *ids)

    def land(self, custom_id: str, fields: Sequence[str | bytes]) -> Step[int]:
        """Return the step that lands a line: 1 if it does, 0 if it had landed, -1 if another worker runs the lane."""
        return self._script("land").step(int, model=self.model, token=self._token, id=custom_id, fields=fields)

    def open_among(self, custom_ids: Sequence[str]) -> list[str]:
        """Return those of these lines that are in no shipment."""
        found: list[str] = []
        for start in range(0, len(custom_ids), _LINES_AT_ONCE):
            some = custom_ids[start : start + _LINES_AT_ONCE]
            came_at = self._client.zmscore(self._key("open"), list(some))
            found += [each for each, at in zip(some, came_at, strict=True) if at is not None]
        return found

    def take_back(self, custom_id: str) -> bool:
        """Remove a line that is in no shipment; return False if it is in one, or has landed."""
        return bool(self._script("take_back")(model=self.model, id=custom_id))

    def take_back_all(self, custom_ids: Sequence[str]) -> list[str]:
        """Remove those of these lines that are in no shipment, in one round trip; return them."""
        steps = [self._script("take_back").step(int, model=self.model, id=custom_id) for custom_id in custom_ids]
        replies = run_together(self._client, steps) if steps else []
        return [custom_id for custom_id, is_removed in zip(custom_ids, replies, strict=True) if is_removed]

    def split(self, first: Shipment, second: Shipment) -> None:
        """Split a shipment in two.

        Raises:
            LaneLost: If another worker runs the lane.
        """
        is_split = self._script("split")(
            model=self.model,
            token=self._token,
            name=first.name,
            first=first.to_json(),
            other=second.name,
            second=second.to_json(),
            lines=first.lines,
        )
        if not is_split:
            raise LaneLost

    def close(self, name: str = "") -> None:
        """Forget a shipment that has landed, and the lane if nothing is left in it.

        Raises:
            LaneLost: If another worker runs the lane.
        """
        if not self._script("close")(model=self.model, token=self._token, name=name):
            raise LaneLost

    def flush(self) -> None:
        """Have the open lines shipped now, whatever might come yet."""
        self._client.set(self._key("flush"), 1, ex=3600)

    def is_flushed(self) -> bool:
        """Return True if open lines are to be shipped now."""
        return bool(self._client.exists(self._key("flush")))

    def clear_flush(self) -> None:
        """Let open lines wait for others again."""
        self._client.delete(self._key("flush"))

    def past(self) -> list[Shipment]:
        """Return the last shipments that were closed, the latest first."""
        return list(map(Shipment.from_json, cast("list[bytes]", self._client.lrange(self._key("past"), 0, -1))))

    def cancel(self, name: str) -> bool:
        """Have the batch of a shipment cancelled at its provider; return False if there is none, or it is."""
        return bool(self._script("cancel")(model=self.model, name=name))

    def cancelled(self) -> frozenset[str]:
        """Return the names of shipments that are to be cancelled."""
        return frozenset(one.decode() for one in cast("set[bytes]", self._client.smembers(self._key("cancelled"))))

    def drop_cancelled(self, name: str) -> None:
        """Forget that a shipment is to be cancelled."""
        self._client.srem(self._key("cancelled"), name)

    def keep_copies(self, name: str) -> None:
        """Keep the lines of a shipment beyond their landing: a second batch of them may turn up."""
        for ids in self.all_ids_of(name):
            if lines := self.lines(ids):
                kept: dict[Any, Any] = {custom_id: line.to_json() for custom_id, line in lines.items()}
                self._client.hset(self._key(f"doubled:{name}"), mapping=kept)

    def copies(self, name: str, custom_ids: Sequence[str]) -> dict[str, LaneLine]:
        """Return those of these lines of which a copy was kept."""
        found = cast("list[bytes | None]", self._client.hmget(self._key(f"doubled:{name}"), list(custom_ids)))
        return {each: LaneLine.from_json(text) for each, text in zip(custom_ids, found, strict=True) if text}

    def every_line(self) -> Iterator[dict[str, LaneLine]]:
        """Yield all lines of the lane, some hundred at a time; a line may come twice."""
        cursor = 0
        while True:
            cursor, found = self._client.hscan(self._key("lines"), cursor, count=_LINES_AT_ONCE)
            lines = cast("dict[bytes, bytes]", found)
            yield {name.decode(): LaneLine.from_json(text) for name, text in lines.items()}
            if not cursor:
                return

    @property
    def quota_tokens(self) -> int | None:
        """Prompt tokens that the account may have waiting, as its provider stated it; None if it has not."""
        found = cast("bytes | None", self._client.hget(self._key("quota"), "most_tokens"))
        return None if found is None else int(found)

    def learn_quota(self, tokens: int) -> None:
        """Keep how many prompt tokens the account may have waiting."""
        self._client.hset(self._key("quota"), "most_tokens", tokens)

    def run(self, steps: Sequence[Step[int]]) -> list[int]:
        """Run steps of landing in one round trip.

        Raises:
            LaneLost: If another worker runs the lane.
        """
        replies = run_together(self._client, list(steps))
        if -1 in replies:
            raise LaneLost
        return replies

    def _key(self, part: str) -> str:
        return lane_key(self.model, part)

    def _script(self, name: str) -> Script:
        return self._scripts[name]
