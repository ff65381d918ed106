"""The gate of the door: recognizes the caller of each request by its key, and holds it to the limits of that key."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from dspyq.api_keys.form import PREFIX, read_key_id
from dspyq.api_keys.known import KnownKeys
from dspyq.api_keys.stated import stated_keys
from dspyq.api_keys.turns import Turn, Turnstiles
from dspyq.api_keys.usage import process_key_usage
from dspyq.config.key_grants import matching
from dspyq.config.settings import get_settings
from dspyq.serve.callers import ANYONE, CHALLENGE, Caller, check_newcomer
from dspyq.serve.problems import FORBIDDEN, TOO_MANY_REQUESTS, UNAUTHENTICATED, Declined

if TYPE_CHECKING:
    from dspyq.api_keys.record import KeyRecord
    from dspyq.config.key_grants import KeyGrant
    from dspyq.serve.callers import Openness

_REFUSAL = "send a good key: Authorization: Bearer dspyq_..."
_BEARER = b"bearer "
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class _Holder(NamedTuple):
    """A key's caller, as long as its record is the same.

    Attributes:
        record: The record.
        caller: The caller.
        networks: The networks that its requests may come from; empty for all.
    """

    record: KeyRecord
    caller: Caller
    networks: tuple[_Network, ...]


class Recognized(NamedTuple):
    """A recognized caller.

    Attributes:
        caller: The caller.
        limit_headers: Headers of the answer that state the rate of its key; none where it has no rate.
    """

    caller: Caller
    limit_headers: tuple[tuple[bytes, bytes], ...] = ()


_ANYONE = Recognized(ANYONE)


class Gate:
    """Recognizes callers. Its event loop alone calls its methods.

    Args:
        openness: How it recognizes them.

    Attributes:
        refused: Number of refused requests, by reason.
    """

    def __init__(self, openness: Openness) -> None:
        self._openness = openness
        self._turnstiles = Turnstiles()
        self._known = KnownKeys(stated_keys(), self._turnstiles.forget)
        self._holders: dict[str, _Holder] = {}
        self._usage = process_key_usage()
        self.refused: Counter[str] = Counter()

    async def recognize(self, headers: Mapping[bytes, bytes], client: str) -> Recognized:
        """Return the caller of a request.

        Args:
            headers: The request's headers, their names in lower case.
            client: The address that it comes from; empty where there is none.

        Raises:
            Declined: With 401 if it is not recognized, with 403 if its key may not be used from there, with 429 if
                its key has no turn.
            RedisUnavailable: If Redis had to be asked, and did not answer.
        """
        if self._openness == "everyone":
            return _ANYONE
        text = _sent_key(headers)
        if self._openness == "loopback" and not text.startswith(PREFIX):
            check_newcomer(headers)
            return _ANYONE
        record = await self._known.verify(text)
        if record is None:
            self.refused["key"] += 1
            raise Declined(UNAUTHENTICATED, _REFUSAL, headers=CHALLENGE)
        holder = self._holder(read_key_id(text) or "", record)
        self._check_place(holder, headers.get(b"origin", b""), client)
        limit_headers = () if record.grant.rate is None else await self._take_turn(holder)
        self._usage.note(holder.caller.key_id, "requests")
        return Recognized(holder.caller, limit_headers)

    def _holder(self, key_id: str, record: KeyRecord) -> _Holder:
        found = self._holders.get(key_id)
        if found is None or found.record is not record:
            networks = tuple(map(ipaddress.ip_network, record.grant.networks))
            found = self._holders[key_id] = _Holder(record, _caller(key_id, record), networks)
        return found

    def _check_place(self, holder: _Holder, origin: bytes, client: str) -> None:
        """Check the page and the address that a request comes from.

        Raises:
            Declined: With 403, if the key may not be used there.
        """
        origins = holder.record.grant.origins
        if origin and origins and origin.decode("latin-1").lower() not in origins:
            self.refused["origin"] += 1
            raise Declined(FORBIDDEN, "the key may not be used by this page")
        if holder.networks and not _is_within(client, holder.networks):
            self.refused["network"] += 1
            raise Declined(FORBIDDEN, "the key may not be used from this address")

    async def _take_turn(self, holder: _Holder) -> tuple[tuple[bytes, bytes], ...]:
        """Take a turn of the key's rate, and return the headers that state it.

        Raises:
            Declined: With 429, if it has none.
        """
        grant = holder.record.grant
        turn = await self._turnstiles.pass_through(holder.caller.key_id, grant)
        headers = _limit_headers(grant, turn)
        if turn.wait_seconds is None:
            return headers
        self.refused["rate"] += 1
        self._usage.note(holder.caller.key_id, "refused")
        raise Declined(
            TOO_MANY_REQUESTS,
            f"the key's rate is {grant.rate:g} requests a second",
            retry_after_seconds=round(turn.wait_seconds, 3),
            headers=headers,
        )


def _caller(key_id: str, record: KeyRecord) -> Caller:
    grant, programs = record.grant, get_settings().programs
    variants = {name for program in programs.values() for name in program.variants}
    return Caller(
        tenant=record.tenant,
        key_id=key_id,
        programs=matching(grant.programs, programs),
        variants=matching(grant.variants, variants),
        most_urgent=grant.priority,
        can=grant.rights,
        key=record,
    )


def _sent_key(headers: Mapping[bytes, bytes]) -> str:
    """Return the key that a request came with; empty for none. A query string is not looked at."""
    stated = headers.get(b"authorization", b"")
    if stated[: len(_BEARER)].lower() == _BEARER:
        return stated[len(_BEARER) :].strip().decode("latin-1")
    return headers.get(b"x-api-key", b"").strip().decode("latin-1")


def _is_within(client: str, networks: tuple[_Network, ...]) -> bool:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)


def _limit_headers(grant: KeyGrant, turn: Turn) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of draft-ietf-httpapi-ratelimit-headers: a burst, and the time in which it comes back."""
    burst, rate = grant.burst_requests, grant.rate or 1.0
    policy = f'"key";q={burst};w={math.ceil(burst / rate)}'
    left = f'"key";r={turn.left};t={math.ceil(turn.full_seconds if turn.wait_seconds is None else turn.wait_seconds)}'
    return (b"ratelimit-policy", policy.encode()), (b"ratelimit", left.encode())
