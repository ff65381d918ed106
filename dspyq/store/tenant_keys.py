"""Keys of tenants: random, one for each, kept in Redis sealed under the deployment's own keys.

What belongs to a tenant is sealed with its key. So a tenant is forgotten by destroying one value, wherever copies of
its content are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import NamedTuple, cast

import redis

from dspyq.errors import ConfigurationError
from dspyq.sealing.envelope import open_envelope, seal
from dspyq.sealing.key_source import LiveKeys
from dspyq.sealing.keyring import KEY_BYTES, TENANT_MARK, key_id_of, new_id
from dspyq.sealing.refusals import UnknownKey, UnreadableContent
from dspyq.store.clients import money_client
from dspyq.store.keys import key

_FIRST = TENANT_MARK.decode()
_OF, _ID = "of:", "id:"
#: A process uses a tenant's key so long before it looks whether that was destroyed; to open, it keeps it longer.
SEALS_SECONDS = 1.0
_OPENS_SECONDS = 60.0


class _Held(NamedTuple):
    key_id: bytes
    key: bytes
    read_at: float


class TenantKeys:
    """The keys of tenants, in the Redis of jobs.

    Args:
        keys: The deployment's own keys.
    """

    def __init__(self, keys: LiveKeys) -> None:
        self._keys = keys
        self._by_tenant: dict[str, _Held] = {}
        self._by_id: dict[bytes, _Held] = {}

    def sealing(self, tenant: str) -> tuple[bytes, bytes]:
        """Return the id of a tenant's key and the key; make it where the tenant has none.

        Raises:
            ConfigurationError: If it is sealed under a key that is not here.
            redis.RedisError: If Redis does not answer.
        """
        held = self._by_tenant.get(tenant)
        if held is None or time.monotonic() - held.read_at > SEALS_SECONDS:
            try:
                held = self._by_tenant[tenant] = self._keep(self._read(tenant) or self._make(tenant))
            except UnreadableContent as error:
                raise ConfigurationError(f"[encryption]: {error}; see `dspyq encryption status`") from None
        return held.key_id, held.key

    def find(self, key_id: bytes) -> bytes | None:
        """Return the key of an id; None for one that was destroyed.

        Raises:
            UnknownKey: If it cannot be read now, or is sealed under a key that is not here.
        """
        held = self._by_id.get(key_id)
        if held is not None and time.monotonic() - held.read_at <= _OPENS_SECONDS:
            return held.key
        try:
            tenant = cast("bytes | None", money_client().hget(_name(), _ID + key_id.decode("ascii", "replace")))
            held = self._read(tenant.decode()) if tenant is not None else None
        except redis.RedisError:
            raise UnknownKey("the keys of tenants cannot be read: Redis does not answer") from None
        return self._keep(held).key if held is not None and held.key_id == key_id else None

    def destroy(self, tenant: str) -> str:
        """Destroy a tenant's key; return its id, empty where there was none.

        Other processes seal with it for a second more, and may open what it sealed for a minute.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        client = money_client()
        stored = cast("bytes | None", client.hget(_name(), _OF + tenant))
        if stored is None:
            return ""
        key_id = stored.partition(b" ")[0].decode()
        client.hdel(_name(), _OF + tenant, _ID + key_id)
        self._by_tenant.pop(tenant, None)
        self._by_id.pop(key_id.encode(), None)
        return key_id

    def seal_again(self) -> int:
        """Seal the keys of all tenants under the deployment's first key; return how many were under another.

        Raises:
            UnknownKey: If one is sealed under a key that is not here.
            redis.RedisError: If Redis does not answer.
        """
        changed = 0
        sealing_id, sealing_key = self._keys.ring.sealing
        for tenant, key_id, envelope in self._all():
            if key_id_of(envelope) == sealing_id:
                continue
            opened = self._open(tenant, key_id, envelope)
            again = seal(sealing_id, sealing_key, _belongs_to(tenant, key_id), opened)
            money_client().hset(_name(), _OF + tenant, key_id + b" " + again)
            changed += 1
        return changed

    def _all(self) -> Iterator[tuple[str, bytes, bytes]]:
        for name, stored in money_client().hscan_iter(_name(), match=f"{_OF}*", count=1000):
            key_id, _, envelope = stored.partition(b" ")
            yield name.decode().removeprefix(_OF), key_id, envelope

    def _read(self, tenant: str) -> _Held | None:
        stored = cast("bytes | None", money_client().hget(_name(), _OF + tenant))
        if stored is None:
            return None
        key_id, _, envelope = stored.partition(b" ")
        return _Held(key_id, self._open(tenant, key_id, envelope), time.monotonic())

    def _open(self, tenant: str, key_id: bytes, envelope: bytes) -> bytes:
        own = self._keys.find(key_id_of(envelope))
        if own is None:
            raise UnknownKey("a tenant's key is sealed with a key that this process lacks")
        return open_envelope(own, _belongs_to(tenant, key_id), envelope)

    def _make(self, tenant: str) -> _Held:
        """Make a tenant's key, unless another process has just done so."""
        client = money_client()
        key_id = new_id(_FIRST)
        while not client.hsetnx(_name(), _ID + key_id, tenant):  # another tenant's
            key_id = new_id(_FIRST)
        envelope = seal(*self._keys.ring.sealing, _belongs_to(tenant, key_id.encode()), os.urandom(KEY_BYTES))
        if not client.hsetnx(_name(), _OF + tenant, key_id.encode() + b" " + envelope):
            client.hdel(_name(), _ID + key_id)
        held = self._read(tenant)
        return held if held is not None else self._make(tenant)

    def _keep(self, held: _Held) -> _Held:
        self._by_id[held.key_id] = held
        return held


def _name() -> str:
    return key("tenant-keys")


def _belongs_to(tenant: str, key_id: bytes) -> bytes:
    return b"\0tenant\0" + tenant.encode() + b"\0" + key_id
