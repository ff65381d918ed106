"""The record of a key: never the key itself, only its hash."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import ValidationError

from dspyq.config.key_grants import ALL_RIGHTS, KeyGrant
from dspyq.core.tolerated import read_text

KeyStatus = Literal["live", "expired", "revoked", "unreadable"]
#: The grant of a record that cannot be read, which is never good.
_NOTHING = KeyGrant(programs=(), can=())


@dataclass(frozen=True)
class KeyRecord:
    """A key, as Redis or the configuration file has it.

    Attributes:
        id: Its public id; empty for one that the file states.
        tenant: The tenant that it belongs to.
        name: A name for people.
        sha256: The hash of the key.
        grant: Its rights and limits.
        created_at: When it was made, in seconds since 1970; 0 for one that the file states.
        created_by: ``user@host``; empty for one that the file states.
        expires_at: When it expires, in seconds since 1970; None for never.
        previous_sha256: The hash of the key before its latest rotation; empty for none.
        previous_until: Until when that one is good, in seconds since 1970.
        revoked_at: When it was revoked, in seconds since 1970; None for a key that was not.
        last_used_day: The last day with a request; empty for none.
        version: The number of its edits.
        is_readable: Whether all of it could be read.
    """

    id: str
    tenant: str
    name: str
    sha256: str
    grant: KeyGrant
    created_at: float = 0.0
    created_by: str = ""
    expires_at: float | None = None
    previous_sha256: str = ""
    previous_until: float = 0.0
    revoked_at: float | None = None
    last_used_day: str = ""
    version: str = "0"
    is_readable: bool = True

    @classmethod
    def read(cls, key_id: str, stored: Mapping[bytes, bytes]) -> KeyRecord | None:
        """Return a key as its hash in Redis states it; None for no hash.

        A hash that this version cannot read gives a key that is never good.
        """
        if not stored:
            return None
        text = {read_text(field): read_text(value) for field, value in stored.items()}
        try:
            scopes = orjson.loads(text.get("scopes", "{}"))
            grant = KeyGrant.model_validate(
                scopes | {name: text[name] for name in ("rate", "burst", "most_waiting") if text.get(name)}
            )
            return cls(
                key_id,
                text["tenant"],
                text.get("name", ""),
                text["sha256"],
                grant,
                float(text.get("created_at") or 0),
                text.get("created_by", ""),
                _time(text.get("expires_at")),
                text.get("previous_sha256", ""),
                float(text.get("previous_until") or 0),
                _time(text.get("revoked_at")),
                text.get("last_used_day", ""),
                text.get("version", "0"),
            )
        except (KeyError, TypeError, ValueError, ValidationError):
            return cls(key_id, text.get("tenant", ""), text.get("name", ""), "", _NOTHING, is_readable=False)

    def accepts(self, sha256: str, now: float) -> bool:
        """Return True if a key of this hash is good now.

        All that can refuse it is computed in any case, so that the time shows nothing of the reason.

        Args:
            sha256: The hash of the key that was sent.
            now: The time, in seconds since 1970.
        """
        is_current = hmac.compare_digest(sha256, self.sha256)
        is_previous = hmac.compare_digest(sha256, self.previous_sha256) & (now < self.previous_until)
        return (is_current | is_previous) & (self.status(now) == "live")

    def status(self, now: float) -> KeyStatus:
        """Return whether the key lives at a time, in seconds since 1970."""
        if not self.is_readable:
            return "unreadable"
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "live"


def fields_of_grant(grant: KeyGrant) -> dict[str, str]:
    """Return the fields that keep a key's rights and limits; empty where there is no limit."""
    scopes = grant.model_dump(mode="json", exclude={"rate", "burst", "most_waiting"})
    limits = {"rate": grant.rate, "burst": grant.burst, "most_waiting": grant.most_waiting}
    return {"scopes": orjson.dumps(scopes).decode()} | {
        name: "" if limit is None else repr(limit) for name, limit in limits.items()
    }


def stated_grant(grant: KeyGrant) -> dict[str, Any]:
    """Return a key's rights and limits as JSON."""
    rights = [right for right in ALL_RIGHTS if right in grant.rights]
    return grant.model_dump(mode="json") | {"can": rights, "burst": grant.burst_requests if grant.rate else None}


def _time(text: str | None) -> float | None:
    return float(text) if text else None
