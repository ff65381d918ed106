"""Rows of a batch's input: what each holds for a program, or what is wrong with it, without quoting it.

A row is one of three forms: ``{"custom_id": …, "inputs": {…}}``, flat input fields with or without ``custom_id``, or a
request of OpenAI's batch API (``dspyq.batch.files.openai_form``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from dspyq.batch.files.openai_form import Misfit, is_openai_form, read_openai_form
from dspyq.config.models import Program

CUSTOM_ID = "custom_id"
INPUTS = "inputs"
#: Ids are kept for every row of a batch, so a column of texts taken for ids must not fill the disk.
MAX_CUSTOM_ID_CHARACTERS = 512

#: Takes what a row states and returns its inputs.
_Read = Callable[[dict[str, Any]], dict[str, Any]]


class Fault(NamedTuple):
    """What is wrong with a row; trying again does not help.

    Attributes:
        type: ``NotJson``, ``NotUtf8``, ``InvalidRow``, ``InvalidInputs``, ``RowTooLarge``, ``UnsupportedRequest``, or
            ``BrokenFile`` where the file cannot be read further.
        message: One line that starts with the row's place and quotes nothing of it.
    """

    type: str
    message: str


class Row(NamedTuple):
    """A row of the input.

    Attributes:
        number: Counts rows from 1; empty lines are none.
        custom_id: The caller's own id; the line's number as text where the row states none.
        inputs: The input fields, not yet checked against the program; None for a faulty row.
        fault: What is wrong with it.
        line: The line it starts at; None in a file that has no lines.
    """

    number: int
    custom_id: str
    inputs: dict[str, Any] | None
    fault: Fault | None = None
    line: int | None = None

    @property
    def where(self) -> str:
        """Its place in the file, as in "line 17"."""
        return _where(self.number, self.line)


class RowReader:
    """Makes rows of a program from what a file holds.

    Args:
        program: Whose input fields they are. A field named ``custom_id`` or ``inputs`` of its own comes first: a flat
            row's ``custom_id`` is then an input, and ``inputs`` is the nested form only where its value is an object
            with a key ``inputs``.

    Attributes:
        has_custom_id: Whether the program has such a field.
    """

    def __init__(self, program: Program) -> None:
        names = {field.name for field in program.signature.inputs}
        self._program = program
        self.has_custom_id = CUSTOM_ID in names
        self._has_inputs = INPUTS in names
        self._can_be_openai = names.isdisjoint({"body", "url"})

    def from_json(self, text: bytes, number: int, line: int) -> Row:
        """Return the row that a line of JSON holds."""
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return faulty(number, line, *_why_not_json(text, error))
        return self.from_object(value, number, line)

    def from_object(self, value: Any, number: int, line: int | None) -> Row:
        """Return the row that a JSON value holds."""
        if type(value) is not dict:
            return faulty(number, line, "InvalidRow", "not an object of input fields")
        read: _Read
        if INPUTS in value and self._is_nested(value[INPUTS]):
            stated, read = value.get(CUSTOM_ID), _nested
        elif self._can_be_openai and is_openai_form(value):
            stated, read = value.get(CUSTOM_ID), self._from_openai
        else:
            stated, read = None if self.has_custom_id else value.pop(CUSTOM_ID, None), _as_it_is
        return self._row(value, stated, read, number, line)

    def from_cells(self, values: dict[str, Any], number: int, line: int) -> Row:
        """Return the row that named cells hold; an empty id is none."""
        return self._row(values, self.take_id(values), _as_it_is, number, line)

    def take_id(self, values: dict[str, Any]) -> str | None:
        """Take the row's id from among its cells."""
        return None if self.has_custom_id else values.pop(CUSTOM_ID, None) or None

    def _row(self, value: dict[str, Any], stated: Any, read: _Read, number: int, line: int | None) -> Row:
        custom_id = str(line or number) if stated is None else stated
        if type(custom_id) is int:
            custom_id = str(custom_id)
        if type(custom_id) is not str or not 0 < len(custom_id) <= MAX_CUSTOM_ID_CHARACTERS:
            message = f"custom_id is a text of 1 to {MAX_CUSTOM_ID_CHARACTERS} characters, or a whole number"
            return faulty(number, line, "InvalidRow", message)
        try:
            return Row(number, custom_id, read(value), None, line)
        except Misfit as misfit:
            return faulty(number, line, misfit.type, str(misfit), custom_id)

    def _is_nested(self, inputs: Any) -> bool:
        return not self._has_inputs or (type(inputs) is dict and INPUTS in inputs)

    def _from_openai(self, value: dict[str, Any]) -> dict[str, Any]:
        return read_openai_form(value, self._program)


def faulty(number: int, line: int | None, kind: str, message: str, custom_id: str | None = None) -> Row:
    """Return a faulty row.

    Args:
        number: As of ``Row``.
        line: As of ``Row``.
        kind: The fault's type.
        message: What is wrong, to stand behind the row's place.
        custom_id: The row's own id, where that could be read.
    """
    where = _where(number, line)
    return Row(number, custom_id or str(line or number), None, Fault(kind, f"{where}: {message}"), line)


def _where(number: int, line: int | None) -> str:
    return f"row {number}" if line is None else f"line {line}"


def _as_it_is(value: dict[str, Any]) -> dict[str, Any]:
    return value


def _nested(value: dict[str, Any]) -> dict[str, Any]:
    inputs = value[INPUTS]
    if type(inputs) is not dict:
        raise Misfit("InvalidRow", "inputs is not an object of input fields")
    if len(value) > 1 + (CUSTOM_ID in value):
        raise Misfit("InvalidRow", "beside inputs a row holds custom_id and nothing else")
    return inputs


def _why_not_json(text: bytes, error: orjson.JSONDecodeError) -> tuple[str, str]:
    try:
        text.decode()
    except UnicodeDecodeError as undecodable:
        return "NotUtf8", f"not UTF-8 (byte {undecodable.start + 1} of the line)"
    if error.doc[error.pos :].startswith(("NaN", "Infinity", "-Infinity")) or error.doc[error.pos - 1 :].startswith(
        "-Infinity"
    ):
        return "NotJson", "not JSON (NaN and infinity have no form in JSON)"
    return "NotJson", f"not JSON ({error.msg}, at character {error.pos + 1})"
