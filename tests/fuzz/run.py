"""Runs of targets: mutations of seeds for some time or number, and the findings."""

from __future__ import annotations

import base64
import random
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.mutations import mutate
from tests.fuzz.targets import Target

_CORPUS = Path(__file__).parent / "corpus"
#: Parsers that read what another one reads.
_FOLDERS = {"request": "message"}
_MOST_FINDINGS = 3


class Finding(NamedTuple):
    """An input that a parser fails on.

    Attributes:
        text: The input.
        error: What was raised, with its place.
    """

    text: bytes
    error: str

    def __str__(self) -> str:
        return f"{base64.b64encode(self.text).decode()}\n{self.error}"


def corpus(name: str) -> dict[str, bytes]:
    """Return a target's files: real messages, results and files, by name; and earlier findings, in base64."""
    real = {path.name: path.read_bytes() for path in sorted((_CORPUS / _FOLDERS.get(name, name)).glob("*"))}
    return real | {path.name: base64.b64decode(path.read_text()) for path in sorted(_CORPUS.glob(f"{name}-*.b64"))}


def fuzz(name: str, target: Target, seed: int, *, seconds: float = 0.0, inputs: int = 0) -> tuple[int, list[Finding]]:
    """Try a target; return the number of inputs and what was found.

    Args:
        name: Its name.
        target: It.
        seed: Decides all inputs.
        seconds: How long, where no number is given.
        inputs: How many.
    """
    tried, findings, places = 0, [], set()
    until = time.monotonic() + seconds
    for text in _inputs(name, target, seed):
        if (tried >= inputs) if inputs else (time.monotonic() >= until):
            break
        tried += 1
        try:
            target.run(text)
        except target.allowed:
            continue
        except Exception as error:  # noqa: BLE001 - that is what is sought
            place = traceback.extract_tb(error.__traceback__)[-1]
            if (place.filename, place.lineno) not in places:
                places.add((place.filename, place.lineno))
                findings.append(Finding(text, "".join(traceback.format_exception(error)[-4:])))
            if len(findings) == _MOST_FINDINGS:
                break
    return tried, findings


def _inputs(name: str, target: Target, seed: int) -> Iterator[bytes]:
    seeds = [*target.seeds, *corpus(name).values()]
    yield from seeds
    chance = random.Random(f"{name}{seed}")  # noqa: S311 - it is to repeat
    while True:
        yield mutate(seeds, chance)
