"""Envelopes: what content becomes when it is sealed.

An envelope is ``dq1``, the id of a key (8 characters), a salt (12 bytes), a nonce (12 bytes), and AES-256-GCM's
ciphertext with its tag (16 bytes): 51 bytes more than the text. The key of each message is derived from the named one
and its salt by keyed BLAKE3, a pseudorandom function. So no message shares a nonce with another under one key, however
many there are, after a fork or a restored snapshot too. The start of the envelope and what the text belongs to are
authenticated with it: an envelope that was moved or given another key's id does not open.
"""

from __future__ import annotations

import os

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dspyq.sealing.keyring import ID_BYTES, MAGIC, OVERHEAD_BYTES
from dspyq.sealing.refusals import UnreadableContent

_SALT_BYTES = 12
_HEAD_BYTES = len(MAGIC) + ID_BYTES
_NONCE_BYTES = 12
_TEXT_AT = _HEAD_BYTES + _SALT_BYTES + _NONCE_BYTES


def seal(key_id: bytes, key: bytes, belongs_to: bytes, text: bytes) -> bytes:
    """Return the envelope of a text.

    Args:
        key_id: The id of the key.
        key: The key, 32 bytes.
        belongs_to: Kind and owner of the text.
        text: The text.
    """
    drawn = os.urandom(_SALT_BYTES + _NONCE_BYTES)
    head = MAGIC + key_id
    cipher = AESGCM(blake3(drawn[:_SALT_BYTES], key=key).digest())
    return head + drawn + cipher.encrypt(drawn[_SALT_BYTES:], text, head + belongs_to)


def open_envelope(key: bytes, belongs_to: bytes, envelope: bytes) -> bytes:
    """Return the text of an envelope.

    Args:
        key: The key that its head names.
        belongs_to: Kind and owner, as they were sealed.
        envelope: The envelope.

    Raises:
        UnreadableContent: If it was changed, cut, or sealed for another kind or owner.
    """
    if len(envelope) < OVERHEAD_BYTES:
        raise UnreadableContent("an envelope that is cut")
    cipher = AESGCM(blake3(envelope[_HEAD_BYTES : _HEAD_BYTES + _SALT_BYTES], key=key).digest())
    nonce = envelope[_HEAD_BYTES + _SALT_BYTES : _TEXT_AT]
    try:
        return cipher.decrypt(nonce, memoryview(envelope)[_TEXT_AT:], envelope[:_HEAD_BYTES] + belongs_to)
    except InvalidTag:
        raise UnreadableContent("an envelope that was changed, or sealed for another owner") from None
