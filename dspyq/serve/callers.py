"""The callers of the door, their tenants, and what they may do."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dspyq.api_keys.store import ApiKeys
from dspyq.config.key_grants import ALL_RIGHTS, Right
from dspyq.errors import ConfigurationError
from dspyq.serve.problems import FORBIDDEN, UNAUTHENTICATED, Declined
from dspyq.store.clients import money_client, redis_errors

if TYPE_CHECKING:
    from dspyq.api_keys.record import KeyRecord
    from dspyq.config.schema import Settings

#: How the server recognizes callers, decided once at its start.
Openness = Literal["keys", "loopback", "everyone"]

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOSTS_KEPT = 64
#: A proxy adds one of these, so its client may be anywhere.
_FORWARDED = frozenset({b"forwarded", b"via", b"x-real-ip"})
#: A header of each refusal with 401.
CHALLENGE = ((b"www-authenticate", b"Bearer"),)


@dataclass(frozen=True)
class Caller:
    """A recognized caller.

    Attributes:
        tenant: Its tenant; empty for none.
        key_id: The public id of its key; empty for none.
        programs: The programs that it may ask; None for all.
        variants: The variants that it may force; None for all.
        most_urgent: Its most urgent priority, 0 (most urgent) to 9.
        can: What it may do.
        key: Its key; None for none.
    """

    tenant: str = ""
    key_id: str = ""
    programs: frozenset[str] | None = None
    variants: frozenset[str] | None = None
    most_urgent: int = 0
    can: frozenset[Right] = frozenset(ALL_RIGHTS)
    key: KeyRecord | None = None

    def may_ask(self, program: str) -> bool:
        """Return True if the caller may know a program and ask it."""
        return self.programs is None or program in self.programs

    def check(self, right: Right) -> None:
        """Check one of its rights.

        Raises:
            Declined: With 403, if it does not have it.
        """
        if right not in self.can:
            raise Declined(FORBIDDEN, f"the key does not have the right {right!r}")


ANYONE = Caller()


def choose_openness(settings: Settings, host: str) -> Openness:
    """Return how a server recognizes its callers; called once, at its start.

    Raises:
        ConfigurationError: If it would be open to other hosts without anyone's having said so.
        RedisUnavailable: If Redis does not answer.
    """
    if settings.serve.authentication == "none":
        return "everyone"
    if _has_keys(settings):
        return "keys"
    if is_loopback(host):
        return "loopback"
    raise ConfigurationError(
        f"serve.host: at {host}, others than this machine can ask, and there is no key yet: create one with dspyq keys "
        "create --tenant TENANT --name NAME, listen at 127.0.0.1, or let everyone ask with "
        'serve.authentication = "none"'
    )


def is_loopback(host: str) -> bool:
    """Return True if only processes of this machine reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _has_keys(settings: Settings) -> bool:
    """Return True if anyone ever made a key: where all were revoked since, the door stays closed."""
    if settings.serve.keys:
        return True
    with redis_errors("look for keys"):
        return ApiKeys(money_client()).has_any()


def check_newcomer(headers: Mapping[bytes, bytes]) -> None:
    """Check a request to a server without keys, which serves its own machine alone.

    A proxy would lead others here, and a name that is no loopback's may be one that a web page has rebound to this
    machine.

    Raises:
        Declined: If the request came through a proxy, or for another name.
    """
    if not _FORWARDED.isdisjoint(headers) or b"x-forwarded-" in b" ".join(headers):
        raise Declined(UNAUTHENTICATED, "a request through a proxy needs a key", headers=CHALLENGE)
    if not _is_own_name(headers.get(b"host", b"")):
        raise Declined(
            UNAUTHENTICATED, "without keys, only localhost, 127.0.0.1 and [::1] are served", headers=CHALLENGE
        )


@functools.lru_cache(maxsize=_HOSTS_KEPT)
def _is_own_name(authority: bytes) -> bool:
    """Return True if a Host header names this machine."""
    text = authority.decode("latin-1").lower()
    name = text[: text.find("]") + 1] if text.startswith("[") else text.partition(":")[0]
    return name in _LOOPBACK_NAMES
