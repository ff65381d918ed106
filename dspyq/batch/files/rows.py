"""Rows of a batch's input: each has inputs for a program, or a fault that quotes none of its content.

A row is one of three forms: ``{"custom_id": …, "inputs": {…}}``, flat input fields with or without ``custom_id``, or a
request of OpenAI's batch API (``dspyq.batch.files.openai_form``).
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from dspyq.batch.files.openai_form import Misfit, is_openai_form, read_openai_form
from dspyq.config.programs import Program

CUSTOM_ID = "custom_id"
INPUTS = "inputs"
#: The journal keeps each row's id, so texts mistaken for ids must not fill the disk.
MAX_CUSTOM_ID_CHARACTERS = 512

#: Rows of one cluster have one number below this; the journal keeps the number, and nothing that a user wrote.
CLUSTERS = 8192
#: The fault of a row without the field of ``--cluster``.
NO_CLUSTER = "NoCluster"

#: Takes what a row states and returns its inputs.
_Read = Callable[[dict[str, Any]], dict[str, Any]]


class Fault(NamedTuple):
    """A permanent fault of a row: a retry does not help.

    Attributes:
        type: ``NotJson``, ``NotUtf8``, ``InvalidRow``, ``InvalidInputs``, ``RowTooLarge``, ``UnsupportedRequest``, or
            ``NoCluster``, or ``BrokenFile`` where the file cannot be read further.
        message: One line that starts with the row's place and quotes nothing of it.
    """

    type: str
    message: str


class Row(NamedTuple):
    """A row of the input.

    Attributes:
        number: Its number, from 1; empty lines do not count.
        custom_id: The caller's own id; the line's number as text where the row states none.
        inputs: The input fields, not yet checked against the program; None for a faulty row.
        fault: Its fault; None for a good row.
        line: The line it starts at; None in a file that has no lines.
        cluster: The number of its cluster, where the batch names a field for that; else None.
    """

    number: int
    custom_id: str
    inputs: dict[str, Any] | None
    fault: Fault | None = None
    line: int | None = None
    cluster: int | None = None

    @property
    def where(self) -> str:
        """Its place in the file, as in "line 17"."""
        return _where(self.number, self.line)


class RowReader:
    """Parser of a file's records as rows of a program.

    Args:
        program: The program. A field named ``custom_id`` or ``inputs`` of its own comes first: a flat
            row's ``custom_id`` is then an input, and ``inputs`` is the nested form only where its value is an object
            with a key ``inputs``.
        cluster: The field that names a row's cluster: an input field, or one beside them; None for none.

    Attributes:
        has_custom_id: Whether the program has such a field.
    """

    def __init__(self, program: Program, cluster: str | None = None) -> None:
        names = {field.name for field in program.signature.inputs}
        self._program = program
        self._cluster = cluster
        self._cluster_beside = cluster if cluster not in names else None
        self.has_custom_id = CUSTOM_ID in names
        self._has_inputs = INPUTS in names
        self._can_be_openai = names.isdisjoint({"body", "url"})

    def from_json(self, text: bytes, number: int, line: int) -> Row:
        """Return the row of a line of JSON."""
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return faulty(number, line, *_why_not_json(text, error))
        return self.from_object(value, number, line)

    def from_object(self, value: Any, number: int, line: int | None) -> Row:
        """Return the row of a JSON value."""
        if type(value) is not dict:
            return faulty(number, line, "InvalidRow", "not an object of input fields")
        beside = value.pop(self._cluster_beside, None) if self._cluster_beside else None
        read: _Read
        if INPUTS in value and self._is_nested(value[INPUTS]):
            stated, read = value.get(CUSTOM_ID), _nested
        elif self._can_be_openai and is_openai_form(value):
            stated, read = value.get(CUSTOM_ID), self._from_openai
        else:
            stated, read = None if self.has_custom_id else value.pop(CUSTOM_ID, None), _as_it_is
        return self._row(value, stated, read, number, line, beside)

    def from_cells(self, values: dict[str, Any], number: int, line: int) -> Row:
        """Return the row of named cells; an empty id counts as none."""
        beside = values.pop(self._cluster_beside, None) if self._cluster_beside else None
        return self._row(values, self.take_id(values), _as_it_is, number, line, beside)

    def take_id(self, values: dict[str, Any]) -> str | None:
        """Take the row's id from among its cells."""
        return None if self.has_custom_id else values.pop(CUSTOM_ID, None) or None

    def _row(  # noqa: PLR0913, PLR0917 - the parts of a row
        self, value: dict[str, Any], stated: Any, read: _Read, number: int, line: int | None, beside: Any
    ) -> Row:
        custom_id = str(line or number) if stated is None else stated
        if type(custom_id) is int:
            custom_id = str(custom_id)
        if type(custom_id) is not str or not 0 < len(custom_id) <= MAX_CUSTOM_ID_CHARACTERS:
            message = f"custom_id is a text of 1 to {MAX_CUSTOM_ID_CHARACTERS} characters, or a whole number"
            return faulty(number, line, "InvalidRow", message)
        try:
            inputs = read(value)
        except Misfit as misfit:
            return faulty(number, line, misfit.type, str(misfit), custom_id)
        if self._cluster is None:
            return Row(number, custom_id, inputs, None, line)
        named = beside if self._cluster_beside else inputs.get(self._cluster)
        if named is None:
            return faulty(number, line, NO_CLUSTER, f"no field {self._cluster!r}, which --cluster names", custom_id)
        return Row(number, custom_id, inputs, None, line, cluster_of(named))

    def _is_nested(self, inputs: Any) -> bool:
        return not self._has_inputs or (type(inputs) is dict and INPUTS in inputs)

    def _from_openai(self, value: dict[str, Any]) -> dict[str, Any]:
        return read_openai_form(value, self._program)


def cluster_of(named: Any) -> int:
    """Return the number of a cluster by what a row names it: of many clusters some share a number."""
    written = orjson.dumps(named, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return int.from_bytes(blake2b(written, digest_size=8).digest(), "big") % CLUSTERS


def faulty(number: int, line: int | None, kind: str, message: str, custom_id: str | None = None) -> Row:
    """Return a faulty row.

    Args:
        number: As of ``Row``.
        line: As of ``Row``.
        kind: The fault's type.
        message: The fault, which follows the row's place.
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
