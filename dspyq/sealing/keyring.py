"""Keys and the lines that state them: ``seal <id> <64 hexadecimal digits>``, and ``index`` likewise.

The first ``seal`` line seals; all of them open. The first ``index`` line is what questions are hashed with; a question
of a job may be hashed with any of them. That key has an id of its own, because another one empties the cache. Blank
lines and those that begin with ``#`` are passed over.
"""

from __future__ import annotations

import os
import re
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from blake3 import blake3

from dspyq.errors import ConfigurationError

#: Every envelope begins with it.
MAGIC = b"dq1"
ID_BYTES = 8
#: Ids of tenants' keys begin with it, and no others.
TENANT_MARK = b"t"
KEY_BYTES = 32
#: How much longer an envelope is than its text: mark, id, salt, nonce and tag.
OVERHEAD_BYTES = len(MAGIC) + ID_BYTES + 12 + 12 + 16

KeyPurpose = Literal["seal", "index"]
KeyRole = Literal["seals", "opens", "hashes"]
_LINE = re.compile(rf"(seal|index)\s+([a-z0-9]{{{ID_BYTES}}})\s+([0-9A-Fa-f]{{{2 * KEY_BYTES}}})")
_ALPHABET = string.ascii_lowercase + string.digits
_FIRST = {"seal": "k", "index": "i"}
_HINT = "`dspyq encryption new-key` prints such a line"


@dataclass(frozen=True)
class Keyring:
    """The keys of a deployment.

    Attributes:
        keys: The keys by their ids; the first one seals.
        index: The keys for hashes by their ids; questions are hashed with the first one.
    """

    keys: dict[bytes, bytes] = field(repr=False)
    index: dict[str, bytes] = field(repr=False)

    @property
    def sealing(self) -> tuple[bytes, bytes]:
        """The key that seals, behind its id."""
        return next(iter(self.keys.items()))

    @property
    def sealing_id(self) -> str:
        """The id of the key that seals."""
        return self.sealing[0].decode()

    @property
    def ids(self) -> list[str]:
        """The ids of the keys that open, the one that seals first."""
        return [key_id.decode() for key_id in self.keys]

    def uses(self) -> list[tuple[str, KeyRole]]:
        """Return the id of each key with its use."""
        seals, *opens = self.ids
        return [(seals, "seals"), *((each, "opens") for each in opens), *((each, "hashes") for each in self.index)]


def is_envelope(stored: bytes) -> bool:
    """Return True for what is sealed, or pretends to be."""
    return stored.startswith(MAGIC)


def key_id_of(envelope: bytes) -> bytes:
    """Return the id of the key that an envelope names."""
    return envelope[len(MAGIC) : len(MAGIC) + ID_BYTES]


def new_key_line(purpose: KeyPurpose = "seal") -> str:
    """Return a line with a new key, for the keys file."""
    return f"{purpose} {new_id(_FIRST[purpose])} {os.urandom(KEY_BYTES).hex()}"


def new_id(first: str) -> str:
    """Return a random id of a key that begins with a letter."""
    return first + "".join(secrets.choice(_ALPHABET) for _ in range(ID_BYTES - 1))


def read_keyring(lines: Iterable[str], source: str) -> Keyring:
    """Return the keys that lines state.

    Args:
        lines: The lines.
        source: Where they stand, for errors; no error quotes a line.

    Raises:
        ConfigurationError: If one cannot be read, an id comes twice, or a key to seal or to hash with is missing.
    """
    keys: dict[bytes, bytes] = {}
    index: dict[str, bytes] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = _LINE.fullmatch(text)
        if found is None:
            raise ConfigurationError(f"{source}, line {number}: not `seal ID KEY` or `index ID KEY`; {_HINT}")
        purpose, key_id, key = found[1], found[2], bytes.fromhex(found[3])
        if key_id.encode() in keys or key_id in index:
            raise ConfigurationError(f"{source}, line {number}: the id {key_id} comes twice")
        if purpose == "seal":
            keys[key_id.encode()] = key
        else:
            index[key_id] = blake3(key, derive_key_context="dspyq 2026-12 hashes of questions").digest()
    if not keys:
        raise ConfigurationError(f"{source}: no line `seal ID KEY`; {_HINT}")
    if not index:
        raise ConfigurationError(f"{source}: no line `index ID KEY`; `dspyq encryption new-key --index` prints one")
    return Keyring(keys, index)
