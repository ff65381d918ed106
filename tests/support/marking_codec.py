"""A codec that marks content in Redis and makes it illegible."""

from __future__ import annotations

from dspyq.store import content

MARK = b"marked:"
_ILLEGIBLE = bytes(byte ^ 0x5A for byte in range(256))


class MarkingCodec:
    """Writes the mark, the kind and the owner before illegible content, and reads nothing without them."""

    def encode(self, kind: content.Kind, owner: str, value: bytes, *, program: str = "", tenant: str = "") -> bytes:
        """Return what is stored."""
        del program, tenant
        return _start(kind, owner) + value.translate(_ILLEGIBLE)

    def decode(self, kind: content.Kind, owner: str, stored: bytes, *, program: str = "") -> bytes:
        """Return what was encoded for this owner.

        Raises:
            UnreadableContent: If it does not bear the mark of it.
        """
        del program
        start = _start(kind, owner)
        if not stored.startswith(start):
            raise content.UnreadableContent(f"{stored[:100]!r} is not marked {start!r}")
        return stored.removeprefix(start).translate(_ILLEGIBLE)


def _start(kind: content.Kind, owner: str) -> bytes:
    return MARK + f"{kind}:{owner}:".encode()
