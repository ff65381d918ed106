"""Registry of batches in Redis, for every host: each one's progress, its runner's liveness and its requested state.

A batch is the hash ``dspy:v1:batch:<id>``; ``dspy:v1:batch:<id>:claims`` holds what it has claimed and not collected,
so that any host can free them when its runner is dead; ``dspy:v1:batches`` lists all by their start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import redis

from dspyq.batch.entry import Entry
from dspyq.client.bulk import Bulk
from dspyq.client.spread_bulk import BulkOverSpines
from dspyq.core.runtime import per_runtime
from dspyq.core.tolerated import read_number, read_text
from dspyq.errors import BatchRefused
from dspyq.store.clients import money_client
from dspyq.store.keys import SECONDS_OF_BATCH, key
from dspyq.store.scripts import load_script

Wanted = Literal["run", "pause", "cancel"]

_LIST = "batches"
#: Silence after which a runner counts as dead or without Redis.
LEASE_SECONDS = 30
#: States that a batch does not leave by itself.
ENDED = ("finished", "cancelled")
_CLAIMS_AT_ONCE = 500


class RegisteredBatch(NamedTuple):
    """A batch as other hosts see it.

    Attributes:
        id: Its id.
        facts: The latest facts from its runner: state, name, program, input, output, host, pid, counts.
        silent_seconds: Their age.
    """

    id: str
    facts: dict[str, str]
    silent_seconds: float

    @property
    def state(self) -> str:
        """Its state; ``not running`` if its runner has sent no heartbeat for too long."""
        state = self.facts.get("state", "")
        return state if self.is_alive or self.has_ended or state == "stopped" else "not running"

    @property
    def has_ended(self) -> bool:
        """Return True if the batch is in a final state."""
        return self.facts.get("state") in ENDED

    @property
    def is_alive(self) -> bool:
        """Return True if its runner is alive."""
        return self.silent_seconds < LEASE_SECONDS


class ClaimedJob(NamedTuple):
    """A job that a batch has claimed.

    Attributes:
        input_hash: The hash of its question.
        queue: Its variant's queue.
    """

    input_hash: str
    queue: str


class Registry:
    """All batches.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._beat = load_script(client, "dspyq.batch", "beat")
        self._want = load_script(client, "dspyq.batch", "want")

    def beat(self, batch_id: str, facts: Mapping[str, str | int | float], *, is_first: bool = False) -> Wanted:
        """Publish a batch's progress; return the state that operators have requested."""
        pairs = [part for pair in facts.items() for part in pair]
        keys = (_key(batch_id), key(_LIST), _claims_key(batch_id))
        wanted: bytes = self._beat(keys, id=batch_id, is_first="1" if is_first else "", facts=pairs)
        return cast("Wanted", wanted.decode())

    def note_claims(self, batch_id: str, entries: Iterable[Entry]) -> None:
        """Record jobs that a batch is about to claim."""
        claims = {
            str(entry.task_id): f"{entry.request.input_hash} {entry.request.queue}"
            for entry in entries
            if entry.request and entry.is_claimed
        }
        if claims:
            pipeline = self._client.pipeline()  # its runner may die before it beats again
            pipeline.hset(_claims_key(batch_id), mapping=cast("Any", claims))
            pipeline.expire(_claims_key(batch_id), SECONDS_OF_BATCH)
            pipeline.execute()

    def drop_claims(self, batch_id: str, task_ids: Sequence[str]) -> None:
        """Delete claims that were collected or released."""
        if task_ids:
            self._client.hdel(_claims_key(batch_id), *task_ids)

    def end(self, batch_id: str) -> None:
        """Forget all claims of a batch."""
        self._client.delete(_claims_key(batch_id))

    def all(self) -> list[RegisteredBatch]:
        """Return every batch, the latest first."""
        ids = [each.decode() for each in cast("list[bytes]", self._client.zrange(key(_LIST), 0, -1, desc=True))]
        return [batch for batch in map(self._read, ids) if batch.facts]

    def find(self, stated: str) -> RegisteredBatch:
        """Return a batch by its id, or by an id's beginning that no other one has.

        Raises:
            BatchRefused: If there is not exactly one.
        """
        ids = [each.decode() for each in cast("list[bytes]", self._client.zrange(key(_LIST), 0, -1))]
        found = [each for each in ids if each.startswith(stated)]
        if stated in ids:
            found = [stated]
        if len(found) != 1:
            what = f"{len(found)} batches begin with" if found else "there is no batch"
            raise BatchRefused(f"{what} {stated!r}: see dspyq batch list")
        batch = self._read(found[0])
        if not batch.facts:
            raise BatchRefused(f"there is no batch {stated!r}: see dspyq batch list")
        return batch

    def want(self, batch_id: str, wanted: Wanted) -> RegisteredBatch:
        """Request a state for a batch.

        Raises:
            BatchRefused: If it has ended.
        """
        state, _ = self._want([_key(batch_id)], wanted=wanted, dead_seconds=LEASE_SECONDS, ended=ENDED)
        if state.decode() in ENDED:
            raise BatchRefused(f"batch {batch_id} has {state.decode()} already")
        return self._read(batch_id)

    def free(self, batch_id: str, bulk: Bulk | BulkOverSpines) -> int:
        """Withdraw the claims of a batch without a runner; return the number of jobs that this ended."""
        ended = 0
        key = _claims_key(batch_id)
        while claims := cast("dict[bytes, bytes]", self._some_claims(key)):
            asked = [(ClaimedJob(*value.decode().split(" ", 1)), task_id.decode()) for task_id, value in claims.items()]
            ended += bulk.withdraw(asked)
            self._client.hdel(key, *claims)
        pipeline = self._client.pipeline()
        pipeline.hset(_key(batch_id), "state", "cancelled")
        pipeline.expire(_key(batch_id), SECONDS_OF_BATCH)
        pipeline.execute()
        return ended

    def _some_claims(self, key: str) -> dict[Any, Any]:
        _, claims = cast("tuple[int, dict[Any, Any]]", self._client.hscan(key, 0, count=_CLAIMS_AT_ONCE))
        return claims or cast("dict[Any, Any]", self._client.hgetall(key))

    def _read(self, batch_id: str) -> RegisteredBatch:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(_key(batch_id))
        pipeline.time()
        facts, (seconds, microseconds) = pipeline.execute()
        known = {read_text(name): read_text(value) for name, value in facts.items()}
        silent_seconds = seconds + microseconds / 1e6 - read_number(known.get("seen_at"))
        return RegisteredBatch(batch_id, known, silent_seconds)


@per_runtime
def process_registry() -> Registry:
    """Return this process's registry."""
    return Registry(money_client())


def _key(batch_id: str) -> str:
    return key(f"batch:{batch_id}")


def _claims_key(batch_id: str) -> str:
    return key(f"batch:{batch_id}:claims")
