"""Bytes as text for URLs: base64 of the URL-safe alphabet, without padding."""

from __future__ import annotations

import binascii

# As tables of bytes, which are ten times faster than those of text.
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")


def to_url_text(raw: bytes) -> str:
    """Return bytes as text that needs no quoting in a URL."""
    return binascii.b2a_base64(raw, newline=False).translate(_TO_URL, b"=").decode()


def from_url_text(text: str) -> bytes:
    """Return the bytes of a text; several texts may have the same.

    Raises:
        ValueError: If it is none.
    """
    return binascii.a2b_base64(text.encode("ascii").translate(_FROM_URL) + b"==", strict_mode=False)
