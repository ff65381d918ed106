"""The keys in Redis: create, revoke, rotate and edit them, and the log of all that.

Each change is one script, and every process that verifies keys notices it within a second.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import orjson
import redis

from dspyq.api_keys.form import IssuedKey, make_key
from dspyq.api_keys.record import KeyRecord, fields_of_grant
from dspyq.config.key_grants import KeyGrant
from dspyq.core.operator import operator_name
from dspyq.core.tolerated import read_number, read_text
from dspyq.errors import InvalidOption
from dspyq.guards.limits import tenant_scope
from dspyq.store.keys import api_key_usage_key, key
from dspyq.store.scripts import Script, Step, command_step, load_script, read_hash, run_together

_MOST_TRIES = 5
_NO_SUCH_KEY, _WAS_REVOKED, _CHANGED = 0, 2, 3
_TENANT_EXISTS = -1
_MONTH_CHARACTERS = 7


class LoggedKeyChange(NamedTuple):
    """A change of a key.

    Attributes:
        at: The time, in seconds since 1970, by Redis's clock.
        key_id: The key's id.
        what: ``create``, ``revoke``, ``rotate`` or ``edit``.
        who: ``user@host`` of the operator.
        tenant: The key's tenant.
        name: The key's name.
        detail: What was changed, as in ``rate=50.0``.
    """

    at: float
    key_id: str
    what: str
    who: str
    tenant: str
    name: str
    detail: str


class KeyUse(NamedTuple):
    """Requests of a day with a key.

    Attributes:
        day: The day, by ``budget.timezone``.
        requests: Requests that were let in.
        refused: Requests that its rate or its places to wait refused.
    """

    day: str
    requests: int
    refused: int


class ApiKeys:
    """Operators' view and control of the keys.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def create(
        self,
        tenant: str,
        name: str,
        grant: KeyGrant,
        *,
        expires_at: float | None = None,
        daily_nano_usd: int | None = None,
    ) -> IssuedKey:
        """Create a key, and its tenant where that is new.

        Args:
            tenant: The tenant that it belongs to.
            name: A name for people.
            grant: Its rights and limits.
            expires_at: When it expires, in seconds since 1970; None for never.
            daily_nano_usd: The limit of a new tenant for a day, in nano-dollars; None for the configured one.

        Raises:
            InvalidOption: If a limit is stated, and the tenant exists.
        """
        fields = fields_of_grant(grant) | {
            "name": name,
            "created_by": operator_name(),
            "expires_at": "" if expires_at is None else repr(expires_at),
        }
        while True:
            made = make_key()
            reply = self._script("create")(
                id=made.id,
                digest=made.sha256,
                tenant=tenant,
                daily="" if daily_nano_usd is None else str(daily_nano_usd),
                daily_field=f"{tenant_scope(tenant)} daily",
                entry=_entry("create", tenant, name),
                fields=_flat(fields),
            )
            if reply == _TENANT_EXISTS:
                raise InvalidOption(
                    f"--daily is the limit of a new tenant, and {tenant} exists; change its limit: "
                    f"dspyq tenants limit {tenant} --daily USD"
                )
            if reply:
                return made

    def find(self, key_id: str) -> KeyRecord:
        """Return a key.

        Raises:
            InvalidOption: If there is none.
        """
        (record,) = read_records(self._client, [key_id])
        if record is None:
            raise _no_such_key(key_id)
        return record

    def all(self, tenant: str | None = None) -> list[KeyRecord]:
        """Return the keys, or those of one tenant, by tenant and time; revoked and expired ones too."""
        ids = sorted(read_text(each) for each in cast("set[bytes]", self._client.smembers(key("keys"))))
        found = [record for record in read_records(self._client, ids) if record is not None]
        wanted = [record for record in found if tenant in (None, record.tenant)]
        return sorted(wanted, key=lambda record: (record.tenant, record.created_at, record.id))

    def revoke(self, key_id: str) -> KeyRecord:
        """Revoke a key for good, and return it; one that was revoked before stays as it is.

        Raises:
            InvalidOption: If there is none.
        """
        record = self.find(key_id)
        self._script("revoke")(id=key_id, entry=_entry("revoke", record.tenant, record.name))
        return self.find(key_id)

    def revoke_all(self, tenant: str) -> int:
        """Revoke the keys of a tenant for good, and return how many were not revoked before."""
        left = [record.id for record in self.all(tenant) if record.revoked_at is None]
        for key_id in left:
            self.revoke(key_id)
        return len(left)

    def rotate(self, key_id: str, grace_seconds: float) -> IssuedKey:
        """Give a key a new secret, and return it.

        Args:
            key_id: The key.
            grace_seconds: How long the secret before stays good.

        Raises:
            InvalidOption: If there is none, or it is revoked.
        """
        record, made = self.find(key_id), make_key(key_id)
        reply = self._script("rotate")(
            id=key_id,
            digest=made.sha256,
            grace=grace_seconds,
            entry=_entry("rotate", record.tenant, record.name, f"grace={grace_seconds:g}s"),
        )
        _check(reply, key_id)
        return made

    def edit(self, key_id: str, grant: Mapping[str, Any], other: Mapping[str, str]) -> KeyRecord:
        """Change a key, and return it.

        Args:
            key_id: The key.
            grant: What changes of its rights and limits, by the names of ``KeyGrant``.
            other: What changes of ``name`` and ``expires_at``, as Redis keeps it.

        Raises:
            InvalidOption: If there is none, or it is revoked, or others change it all the time.
            pydantic.ValidationError: If the new rights and limits are none.
        """
        detail = " ".join(f"{name}={value}" for name, value in {**grant, **other}.items())
        for _ in range(_MOST_TRIES):
            record = self.find(key_id)
            changed = KeyGrant.model_validate(record.grant.model_dump() | dict(grant))
            reply = self._script("edit")(
                id=key_id,
                expected=record.version,
                change=os.urandom(8).hex(),
                entry=_entry("edit", record.tenant, other.get("name", record.name), detail),
                fields=_flat(fields_of_grant(changed) | dict(other)),
            )
            if reply != _CHANGED:
                _check(reply, key_id)
                return self.find(key_id)
        raise InvalidOption(f"the key {key_id} is being changed by others; try again")

    def log(self, key_id: str | None = None, most: int = 100) -> list[LoggedKeyChange]:
        """Return the latest changes, of all keys or of one, the oldest of them first."""
        found = cast("list[Any]", self._client.xrevrange(key("key-log"), count=None if key_id else most))
        changes = (_logged(identity, fields) for identity, fields in found)
        wanted = [change for change in changes if key_id in (None, change.key_id)]
        return wanted[:most][::-1]

    def usage(self, key_id: str, days: Sequence[str]) -> list[KeyUse]:
        """Return the requests with a key on these days, in their order; days without any are left out."""
        months = sorted({day[:_MONTH_CHARACTERS] for day in days})
        steps = [command_step(read_hash, "HGETALL", api_key_usage_key(key_id, month)) for month in months]
        counts: dict[bytes, bytes] = {}
        for found in run_together(self._client, steps):
            counts |= found
        uses = [KeyUse(day, *(_count(counts, day, kind) for kind in ("requests", "refused"))) for day in days]
        return [use for use in uses if use.requests or use.refused]

    def has_any(self) -> bool:
        """Return True if there ever was a key, revoked and expired ones included."""
        return bool(self._client.exists(key("keys")))

    def _script(self, name: str) -> Script:
        return load_script(self._client, "dspyq.api_keys", name)


def read_records(client: redis.Redis, key_ids: Iterable[str]) -> list[KeyRecord | None]:
    """Return keys by their ids, in one round trip; None for those that are not there."""
    ids = list(key_ids)
    steps: list[Step[Any]] = [command_step(read_hash, "HGETALL", key("key:") + each) for each in ids]
    return [KeyRecord.read(each, found) for each, found in zip(ids, run_together(client, steps), strict=True)]


def _check(reply: int, key_id: str) -> None:
    if reply == _NO_SUCH_KEY:
        raise _no_such_key(key_id)
    if reply == _WAS_REVOKED:
        raise InvalidOption(f"the key {key_id} is revoked, for good: create another with dspyq keys create")


def _no_such_key(key_id: str) -> InvalidOption:
    return InvalidOption(f"there is no key {key_id}; dspyq keys list shows those there are")


def _entry(what: str, tenant: str, name: str, detail: str = "") -> bytes:
    return orjson.dumps({"what": what, "who": operator_name(), "tenant": tenant, "name": name, "detail": detail})


def _logged(identity: bytes, fields: Mapping[bytes, bytes]) -> LoggedKeyChange:
    at, key_id = int(identity.split(b"-")[0]) / 1000, read_text(fields.get(b"key", b""))
    try:
        stated = orjson.loads(fields.get(b"entry", b""))
        return LoggedKeyChange(
            at, key_id, *(str(stated.get(name, "")) for name in ("what", "who", "tenant", "name", "detail"))
        )
    except (ValueError, AttributeError):
        return LoggedKeyChange(at, key_id, "unreadable", "", "", "", "")


def _count(counts: Mapping[bytes, bytes], day: str, kind: str) -> int:
    return int(read_number(counts.get(f"{day} {kind}".encode())))


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [part for pair in fields.items() for part in pair]
