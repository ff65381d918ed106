"""The callers of the door, their tenants, and what they may do."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from dspyq.errors import ConfigurationError
from dspyq.serve.problems import FORBIDDEN, UNAUTHENTICATED, Declined

if TYPE_CHECKING:
    from dspyq.config.schema import Settings

Right = Literal["predict", "stream", "batch", "feedback", "usage", "refresh", "variant"]
ALL_RIGHTS: frozenset[Right] = frozenset(get_args(Right))
#: How the server recognizes callers, decided once at its start.
Openness = Literal["keys", "loopback", "everyone"]

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
#: A proxy adds one of these, so its client may be anywhere.
_FORWARDED = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip")
_CHALLENGE = ((b"www-authenticate", b"Bearer"),)


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
    """

    tenant: str = ""
    key_id: str = ""
    programs: frozenset[str] | None = None
    variants: frozenset[str] | None = None
    most_urgent: int = 0
    can: frozenset[Right] = field(default=ALL_RIGHTS)

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


async def authenticate(headers: Mapping[bytes, bytes], openness: Openness) -> Caller:
    """Return the caller of a request.

    Args:
        headers: The request's headers, their names in lower case.
        openness: How this server recognizes callers.

    Raises:
        Declined: With 401, if it is not recognized.
    """
    if openness == "everyone":
        return ANYONE
    if openness == "loopback":
        return _newcomer(headers)
    raise Declined(UNAUTHENTICATED, "send a key: Authorization: Bearer dspyq_...", headers=_CHALLENGE)


def choose_openness(settings: Settings, host: str) -> Openness:
    """Return how a server recognizes its callers; called once, at its start.

    Raises:
        ConfigurationError: If it would be open to other hosts without anyone's having said so.
    """
    if settings.serve.authentication == "none":
        return "everyone"
    if _has_keys():
        return "keys"
    if is_loopback(host):
        return "loopback"
    raise ConfigurationError(
        f"serve.host: at {host}, others than this machine can ask, and there is no key yet: create one, listen at "
        '127.0.0.1, or set serve.authentication = "none" to let everyone ask'
    )


def is_loopback(host: str) -> bool:
    """Return True if only processes of this machine reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _has_keys() -> bool:
    return False


def _newcomer(headers: Mapping[bytes, bytes]) -> Caller:
    """Return the caller of a server without keys, which serves its own machine alone.

    A proxy would lead others here, and a name that is no loopback's may be one that a web page has rebound to this
    machine.

    Raises:
        Declined: If the request came through a proxy, or for another name.
    """
    if any(name in headers for name in _FORWARDED) or any(name.startswith(b"x-forwarded-") for name in headers):
        raise Declined(UNAUTHENTICATED, "a request through a proxy needs a key", headers=_CHALLENGE)
    if _host_name(headers.get(b"host", b"")) not in _LOOPBACK_NAMES:
        raise Declined(
            UNAUTHENTICATED, "without keys, only localhost, 127.0.0.1 and [::1] are served", headers=_CHALLENGE
        )
    return ANYONE


def _host_name(authority: bytes) -> str:
    text = authority.decode("latin-1").lower()
    return text[: text.find("]") + 1] if text.startswith("[") else text.partition(":")[0]
