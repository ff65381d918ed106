"""Mutations of seeds: of their bytes, and of the values of those that are JSON."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import orjson

_BYTES = (
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b'"',
    b"{",
    b"[" * 300,
    b"1e999",
    b"-0",
    b"NaN",
    b"\r\n",
    b",",
    b"\xef\xbb\xbf",
)
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**63, -(2**63), 1e308, "", "x" * 300, "\ud800", "\0", [], {}, [[]], {"": None}),
    *("__type__", {"__type__": "datetime", "__value__": 1}, {"__type__": []}, [None] * 50),
    *("1970-01-01T00:00:00", {"exc_type": "SystemExit", "exc_message": [], "exc_module": "builtins"}),
)
_MOST_STEPS = 6
_JSON_SHARE = 0.6


def mutate(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """Return a mutation of one of these seeds."""
    text = chance.choice(seeds)
    if chance.random() < _JSON_SHARE:
        text = _mutate_json(text, chance)
    for _ in range(chance.randrange(_MOST_STEPS) if chance.random() < 1 - _JSON_SHARE / 2 else 0):
        text = _mutate_bytes(text, seeds, chance)
    return text


def _mutate_bytes(text: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    start = chance.randrange(len(text) + 1)
    end = min(len(text), start + chance.choice((0, 1, 1, 2, 8, 64, 1_000)))
    match chance.randrange(5):
        case 0:  # leave out
            return text[:start] + text[end:]
        case 1:  # repeat
            return text[:end] + text[start:end] * chance.choice((1, 2, 100)) + text[end:]
        case 2:  # put in
            return text[:start] + chance.choice(_BYTES) + text[end:]
        case 3 if text:  # flip a bit
            at = chance.randrange(len(text))
            return text[:at] + bytes((text[at] ^ 1 << chance.randrange(8),)) + text[at + 1 :]
        case _:  # go on as another seed does
            other = chance.choice(seeds)
            return text[:start] + other[chance.randrange(len(other) + 1) :]


def _mutate_json(text: bytes, chance: random.Random) -> bytes:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    for _ in range(1 + chance.randrange(3)):
        value = _replace_part(value, chance)
    try:
        return orjson.dumps(value)
    except TypeError:  # half a surrogate pair, or an integer of more than 64 bits
        return text


def _replace_part(value: Any, chance: random.Random) -> Any:
    """Return a value with one part replaced, left out or given another name."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.15:
        return chance.choice(_VALUES)
    copy = value.copy()
    at = chance.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    if chance.random() < 0.15:
        del copy[at]
    else:
        copy[at] = _replace_part(copy[at], chance)
    return copy
