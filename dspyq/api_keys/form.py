"""The form of a key: ``dspyq_<id>_<secret><checksum>``.

The id is public: commands, logs and lists show it. The secret has 256 random bits, so one SHA-256 of the key is enough
to keep, without salt or stretching: nothing can be guessed. The checksum refuses a key that was cut off, mistyped or
made up, without a look at Redis; and the prefix lets scanners find keys in texts where they do not belong.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from typing import NamedTuple

PREFIX = "dspyq_"
ID_CHARACTERS = 12
#: 62^43 is more than 2^256.
_SECRET_CHARACTERS = 43
#: 62^6 is more than 2^32.
_CHECKSUM_CHARACTERS = 6
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_FORM = re.compile(
    rf"{PREFIX}([0-9A-Za-z]{{{ID_CHARACTERS}}})_[0-9A-Za-z]{{{_SECRET_CHARACTERS + _CHECKSUM_CHARACTERS}}}"
)
_ID = re.compile(rf"(?:{PREFIX})?([0-9A-Za-z]{{{ID_CHARACTERS}}})(?:_[0-9A-Za-z]*)?")


class IssuedKey(NamedTuple):
    """A key as its holder has it. It is shown once, and kept nowhere.

    Attributes:
        id: Its public part.
        text: The whole key.
    """

    id: str
    text: str

    @property
    def sha256(self) -> str:
        """The hash that is kept of it, in hexadecimal digits."""
        return sha256_of(self.text)


def make_key(key_id: str | None = None) -> IssuedKey:
    """Return a new key.

    Args:
        key_id: The id, where a key gets a new secret; a random one where left out.
    """
    key_id = key_id or _random(ID_CHARACTERS)
    body = f"{PREFIX}{key_id}_{_random(_SECRET_CHARACTERS)}"
    return IssuedKey(key_id, body + _checksum(body))


def read_key_id(text: str) -> str | None:
    """Return the id of a key; None for a text that is no key, as its form or its checksum shows."""
    found = _FORM.fullmatch(text)
    if found is None or _checksum(text[:-_CHECKSUM_CHARACTERS]) != text[-_CHECKSUM_CHARACTERS:]:
        return None
    return found[1]


def id_in(text: str) -> str | None:
    """Return the id that an operator states: the id itself, or a key, whole or cut short."""
    found = _ID.fullmatch(text.strip())
    return found[1] if found else None


def sha256_of(text: str) -> str:
    """Return the SHA-256 of a key, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _random(characters: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(characters))


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
