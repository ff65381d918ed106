"""Slots of a Redis Cluster: each spine is one, by a hash tag that all its keys begin with."""

from __future__ import annotations

import functools
import itertools
from binascii import crc_hqx

SLOTS = 16_384
#: The tag of what the fleet has once.
HOME_TAG = "{home}"


def slot_of(tag: str) -> int:
    """Return the slot of all keys that begin with a tag, as ``{7-1}``.

    Args:
        tag: The tag with its braces; Redis hashes what is between them, by CRC-16/XMODEM (Redis Cluster specification).
    """
    return crc_hqx(tag[1:-1].encode(), 0) % SLOTS


@functools.cache
def tag_of(spine: int, spines: int) -> str:
    """Return the tag of a spine: the first one whose slot is in the spine's own part of all slots.

    So masters that share the slots evenly share the spines evenly, however many they are.

    Args:
        spine: Its number, from 0.
        spines: How many there are.
    """
    tags = (f"{{{spine}-{attempt}}}" for attempt in itertools.count())
    return next(tag for tag in tags if slot_of(tag) * spines // SLOTS == spine)
