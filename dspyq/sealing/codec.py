"""The codec that seals content, by program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from dspyq.sealing.envelope import open_envelope, seal
from dspyq.sealing.key_source import LiveKeys
from dspyq.sealing.keyring import ID_BYTES, MAGIC, TENANT_MARK
from dspyq.sealing.refusals import RefusalCause, UnreadableContent, refusals, refuse_unknown_key

#: How a program's content is kept: in plain text; sealed, while plain text is read too; or sealed alone.
Sealing = Literal[False, "prefer", True]
#: The part of an envelope that names its key.
_ID = slice(len(MAGIC), len(MAGIC) + ID_BYTES)
#: The kind of content that states its program wherever it is read.
_MESSAGE = "job"
_STRICTNESS: tuple[Sealing, ...] = (False, "prefer", True)


class KeysOfTenants(Protocol):
    """The keys of tenants."""

    def sealing(self, tenant: str) -> tuple[bytes, bytes]:
        """Return the id of a tenant's key and the key."""

    def find(self, key_id: bytes) -> bytes | None:
        """Return the key of an id; None for one that was destroyed."""


class SealingCodec:
    """Seals what belongs to programs that ask for it.

    Messages are kept as their program states. All else is found by a task's id alone, so that its reader cannot know
    from elsewhere whose it is to be: it is kept as the strictest program states, or a writer to Redis could pass plain
    text off as another program's. All that is sealed is opened, whatever its program.

    Args:
        keys: The keys.
        programs: How each program's content is kept.
        tenants: The keys of tenants; without them, content of tenants is sealed as all other is.
    """

    def __init__(self, keys: LiveKeys, programs: Mapping[str, Sealing], tenants: KeysOfTenants | None = None) -> None:
        self.keys = keys
        self._tenants = tenants
        self._programs = dict(programs)
        self._strictest = max(self._programs.values(), key=_STRICTNESS.index, default=False)

    def encode(self, kind: str, owner: str, value: bytes, *, program: str = "", tenant: str = "") -> bytes:
        """Return a value's envelope; the value itself where its program is not sealed."""
        if not self._mode(kind, program):
            return value
        key_id, key = self._tenants.sealing(tenant) if tenant and self._tenants else self.keys.ring.sealing
        return seal(key_id, key, f"\0{kind}\0{owner}".encode("utf-8", "surrogatepass"), value)

    def decode(self, kind: str, owner: str, stored: bytes, *, program: str = "") -> bytes:
        """Return what was encoded for this owner.

        Raises:
            UnknownKey: If it is sealed with a key that is not here.
            UnreadableContent: If it was changed, is another owner's, or is plain text where it must be sealed.
        """
        # Written out: each hit passes here, with the processor's caches full of what came before.
        if not stored.startswith(MAGIC):
            if self._mode(kind, program) is not True:
                return stored
            _note("plain_text", kind, b"")
            raise UnreadableContent("it is plain text where all is sealed")
        key_id = stored[_ID]
        key = self.keys.ring.keys.get(key_id)
        if key is None:
            key = self._find(kind, key_id)
        try:
            return open_envelope(key, f"\0{kind}\0{owner}".encode("utf-8", "surrogatepass"), stored)
        except UnreadableContent:
            _note("altered", kind, key_id)
            raise

    def _mode(self, kind: str, program: str) -> Sealing:
        """Return how content is kept: a message as its program states, all else as the strictest one does."""
        return self._programs.get(program, self._strictest) if kind == _MESSAGE else self._strictest

    def _find(self, kind: str, key_id: bytes) -> bytes:
        """Return the key of a tenant, or one that this process has not read yet."""
        if self._tenants is None or not key_id.startswith(TENANT_MARK):
            key = self.keys.find(key_id)
            if key is None:
                raise refuse_unknown_key(kind, key_id)
            return key
        key = self._tenants.find(key_id)
        if key is None:
            _note("forgotten", kind, key_id)
            raise UnreadableContent("its tenant was forgotten, and its key destroyed")
        return key


def _note(cause: RefusalCause, kind: str, key_id: bytes) -> None:
    refusals.note(cause, kind=kind, key_id=key_id.decode("ascii", "replace"))
