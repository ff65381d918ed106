"""The keys that the configuration file states, by their hashes, where Redis is not the place for them."""

from __future__ import annotations

from collections.abc import Mapping

from dspyq.api_keys.record import KeyRecord
from dspyq.config.key_grants import KeyGrant
from dspyq.config.settings import get_settings


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
