"""The keys that the configuration file states, by their hashes, where Redis is not the place for them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import ValidationError

from dspyq.api_keys.record import KeyRecord
from dspyq.config.key_grants import KeyGrant
from dspyq.config.sections import ServeSection
from dspyq.config.settings import get_settings
from dspyq.errors import InvalidOption


def stated_keys() -> Mapping[str, KeyRecord]:
    """Return them by their hashes."""
    return {
        key.sha256: KeyRecord(
            "",
            key.tenant,
            name,
            key.sha256,
            KeyGrant.model_validate(key.model_dump(include=set(KeyGrant.model_fields))),
            expires_at=None if key.expires_at is None else key.expires_at.timestamp(),
        )
        for name, key in get_settings().serve.keys.items()
    }


def table_of(sha256: str, tenant: str, name: str, grant: KeyGrant, expires_at: float | None) -> str:
    """Return the table of a key, as TOML.

    Args:
        sha256: The hash of the key.
        tenant: The tenant that it belongs to.
        name: The table's name.
        grant: Its rights and limits.
        expires_at: When it expires, in seconds since 1970; None for never.

    Raises:
        InvalidOption: If no table has that name.
    """
    stated: dict[str, Any] = {
        "sha256": sha256,
        "tenant": tenant,
        **grant.model_dump(mode="json", exclude_defaults=True),
    }
    try:
        ServeSection.model_validate({"keys": {name: stated}})
    except ValidationError:
        raise InvalidOption("--name: a table's name has letters, digits, dashes and underscores") from None
    lines = [f"{key} = {orjson.dumps(value).decode()}" for key, value in stated.items()]
    if expires_at is not None:
        lines.append(f"expires_at = {datetime.fromtimestamp(expires_at, UTC).isoformat(timespec='seconds')}")
    return "\n".join([f"[serve.keys.{name}]", *lines, ""])
