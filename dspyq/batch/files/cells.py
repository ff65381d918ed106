"""Values of CSV cells, parsed by the type that the program's signature states."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

import orjson

from dspyq.config.signature import Field, SignatureError

#: Takes a cell's text and returns its value, or raises ``Misread``.
CellReader = Callable[[str], Any]

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
#: Largest integer that orjson writes.
_INTEGER_RANGE = range(-(2**63), 2**64)


class Misread(ValueError):
    """A cell's text is no value of its type; the message states the expected form and does not quote the cell."""


def cell_reader(field: Field) -> CellReader | None:
    """Return the parser of an input field's cells; None if a cell's text is its value.

    Whole numbers, numbers and booleans (``true``, ``false``, ``1``, ``0``) are read as such, lists and dicts as JSON,
    an empty cell of an optional field as None, and a ``Literal`` by the text of its values. Any other type's cell is
    JSON where it reads as JSON, and text otherwise.
    """
    try:
        read = _reader(field.resolve())
    except SignatureError:  # a type whose module is not installed here
        read = _json_or_text
    return None if read is _text else read


def _reader(kind: Any) -> CellReader:
    origin = get_origin(kind)
    if origin is Literal:
        return _literal(get_args(kind))
    if origin in (Union, types.UnionType):
        return _union(get_args(kind))
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if kind is dict or kind is list or origin in (dict, list, tuple, set):
        return _json
    if kind is Any or not isinstance(kind, type) or kind.__module__ not in ("datetime", "decimal", "uuid"):
        return _json_or_text
    return _text


def _text(cell: str) -> str:
    return cell


def _integer(cell: str) -> int:
    if not _INTEGER.fullmatch(cell.strip()) or int(cell) not in _INTEGER_RANGE:
        raise Misread("is not a whole number")
    return int(cell)


def _number(cell: str) -> float:
    if not _NUMBER.fullmatch(cell.strip()) or not math.isfinite(float(cell)):
        raise Misread("is not a number")
    return float(cell)


def _boolean(cell: str) -> bool:
    value = _BOOLEANS.get(cell.strip().lower())
    if value is None:
        raise Misread("is neither true nor false")
    return value


def _none(cell: str) -> None:
    if cell:
        raise Misread("is not empty")


def _json(cell: str) -> Any:
    try:
        return orjson.loads(cell)
    except orjson.JSONDecodeError:
        raise Misread("is not JSON") from None


def _json_or_text(cell: str) -> Any:
    try:
        return orjson.loads(cell)
    except orjson.JSONDecodeError:
        return cell


def _literal(values: tuple[Any, ...]) -> CellReader:
    by_text = {str(value).lower() if isinstance(value, bool) else str(value): value for value in values}

    def read(cell: str) -> Any:
        value = by_text.get(cell, by_text)
        if value is by_text:
            raise Misread(f"is none of {', '.join(by_text)}")
        return value

    return read


def _union(members: tuple[Any, ...]) -> CellReader:
    """Return the first member that a cell parses as: None if empty, text only if nothing else fits."""
    readers = [_reader(member) for member in members if member is not types.NoneType]
    readers.sort(key=lambda reader: reader in (_text, _json_or_text))
    is_optional = types.NoneType in members

    def read(cell: str) -> Any:
        if is_optional and not cell:
            return None
        for reader in readers[:-1]:
            try:
                return reader(cell)
            except Misread:
                continue
        return readers[-1](cell)

    return read


_SIMPLE: dict[Any, CellReader] = {
    str: _text,
    int: _integer,
    float: _number,
    bool: _boolean,
    types.NoneType: _none,
}
