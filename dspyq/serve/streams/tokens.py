"""Tokens in the URLs of event streams, for clients that can send no header, such as a browser's ``EventSource``.

Each is good for one stream, for ten minutes. A key never stands in a URL.
"""

from __future__ import annotations

import hmac
import time

from blake3 import blake3

from dspyq.serve.url_text import from_url_text, to_url_text

TOKEN_SECONDS = 600
_EXPIRY_BYTES, _MAC_BYTES = 5, 12
_HEAD_BYTES = _EXPIRY_BYTES + _MAC_BYTES


def write_token(public_id: str, tenant: str, key: bytes) -> str:
    """Return a token, fit for a URL.

    Args:
        public_id: The prediction.
        tenant: The caller's tenant; empty for none.
        key: The fleet's signing key.
    """
    expiry = (int(time.time()) + TOKEN_SECONDS).to_bytes(_EXPIRY_BYTES, "big")
    raw = expiry + _mac(expiry, public_id, tenant, key) + tenant.encode()
    return to_url_text(raw)


def read_token(text: str, public_id: str, key: bytes) -> str | None:
    """Return the tenant that a token was made for; None for one that is not good for this prediction now."""
    try:
        raw = from_url_text(text)
        tenant = raw[_HEAD_BYTES:].decode()
    except ValueError:
        return None
    expiry, mac = raw[:_EXPIRY_BYTES], raw[_EXPIRY_BYTES:_HEAD_BYTES]
    is_own = len(raw) >= _HEAD_BYTES and hmac.compare_digest(mac, _mac(expiry, public_id, tenant, key))
    return tenant if is_own and int.from_bytes(expiry, "big") > time.time() else None


def _mac(expiry: bytes, public_id: str, tenant: str, key: bytes) -> bytes:
    signed = b"stream\0" + expiry + tenant.encode() + b"\0" + public_id.encode()
    return blake3(signed, key=key).digest(length=_MAC_BYTES)
