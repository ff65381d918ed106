"""Exported rows as DSPy's examples."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import orjson

from dspyq.config.codec import decode_inputs, decode_outputs
from dspyq.errors import DspyqError, InvalidFile
from dspyq.prediction.request import find_program


def read(path: str | os.PathLike[str]) -> list[dspy.Example]:
    """Read what ``dspyq experiment export`` wrote.

    Inputs and outputs have the types that the program's signature states.

    Args:
        path: The file.

    Returns:
        For each row ``dspy.Example(…).with_inputs(…)``, in the order of the file.

    Raises:
        InvalidFile: If it cannot be read, or a line is no exported row of a program of this configuration.
    """
    return list(_examples(Path(path)))


def _examples(path: Path) -> Iterator[dspy.Example]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _example(line, f"{path}, line {number}")
    except OSError as error:
        raise InvalidFile(f"cannot read {path}: {error.strerror or type(error).__name__}") from None


def _example(line: bytes, where: str) -> dspy.Example:
    try:
        row = orjson.loads(line)
        name, inputs, outputs = row["program"], row["inputs"], row["outputs"]
        if not (isinstance(name, str) and isinstance(inputs, dict) and isinstance(outputs, dict)):
            raise TypeError  # noqa: TRY301 - as a line that lacks them
    except (ValueError, TypeError, KeyError):
        raise InvalidFile(f"{where}: no row of dspyq experiment export") from None
    try:
        program = find_program(name)
        typed: dict[str, Any] = decode_inputs(program, inputs)
        typed_outputs = decode_outputs(program, outputs)
    except DspyqError as error:
        raise InvalidFile(f"{where}: {error}") from None
    return dspy.Example(**typed, **typed_outputs).with_inputs(*typed)
