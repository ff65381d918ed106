"""Dry pass over a batch's input: counts its rows, and those that would have to be paid."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice

from dspyq.batch.files.rows import Row
from dspyq.batch.quotes.cache_probe import peek
from dspyq.batch.quotes.estimate import Rows
from dspyq.batch.quotes.history import SAMPLED_ANSWERS
from dspyq.config.programs import Program
from dspyq.errors import InvalidRequest
from dspyq.prediction.request import Request, build_request

_CHUNK_ROWS = 500
_HASH_BYTES = 16
#: The variants that answer each row, None for its own; and the tenant.
_AskedBy = tuple[Sequence[str | None], str | None]


@dataclass
class VariantRowCounts:
    """The questions of a batch that a variant answers.

    Attributes:
        new: Those to be paid.
        input_bytes: The bytes of their inputs.
        cached: Those that are answered.
        running: Those that another caller's run is about to answer.
        answers: Tasks that answered some of them, and the bytes of their inputs: a fair sample.
    """

    new: int = 0
    input_bytes: int = 0
    cached: int = 0
    running: int = 0
    answers: list[tuple[str, int]] = field(default_factory=list)

    @property
    def rows(self) -> Rows:
        """Those to be paid."""
        return Rows(self.new, self.input_bytes)


@dataclass
class RowCounts:
    """Counts of an input's rows.

    Attributes:
        rows: All rows, including faulty ones.
        faults: The faulty ones, by type.
        duplicates: Repeated questions, which cost nothing.
        variants: The others, by variant.
    """

    rows: int
    faults: Counter[str]
    duplicates: int
    variants: dict[str, VariantRowCounts]


def count_rows(
    rows: Iterable[Row],
    program: Program,
    *,
    variant: str | None,
    is_paired: bool,
    tenant: str | None = None,
) -> RowCounts:
    """Count an input's rows in a stream; ids and hashes are kept on disk.

    Args:
        rows: The input's rows.
        program: The program.
        variant: A variant to force.
        is_paired: True to run every row with every variant.
        tenant: The tenant of the calls, which may have cached answers of its own.
    """
    asked: Sequence[str | None] = list(program.variants) if is_paired else [variant]
    counted = RowCounts(0, Counter(), 0, {name: VariantRowCounts() for name in program.variants})
    numbers = random.Random(0)  # noqa: S311 - no secret
    seen = _SeenTexts()
    iterator = iter(rows)
    while chunk := list(islice(iterator, _CHUNK_ROWS)):
        counted.rows += len(chunk)
        requests = list(_requests(chunk, program, (asked, tenant), seen, counted))
        for request, found in zip(requests, peek(requests), strict=True):
            of = counted.variants[request.variant.name]
            if found.state == "answered":
                of.cached += 1
                _sample(of, (found.task_id, len(request.canonical_inputs)), numbers)
            elif found.state == "running":
                of.running += 1
            else:
                of.new += 1
                of.input_bytes += len(request.canonical_inputs)
    return counted


def _requests(
    chunk: Sequence[Row], program: Program, asked_by: _AskedBy, seen: _SeenTexts, counted: RowCounts
) -> Iterator[Request]:
    """Yield the questions that occur first in these rows."""
    asked, tenant = asked_by
    for row in chunk:
        if row.fault or row.inputs is None:
            counted.faults[row.fault.type if row.fault else "InvalidRow"] += 1
            continue
        if not seen.is_new(b"i", row.custom_id.encode(errors="surrogatepass")):
            counted.faults["DuplicateCustomId"] += 1
            continue
        try:
            requests = [build_request(row.inputs, program=program.name, variant=name, tenant=tenant) for name in asked]
        except InvalidRequest as error:
            counted.faults[type(error).__name__] += 1
            continue
        for request in requests:
            if seen.is_new(b"q", bytes.fromhex(request.input_hash)):
                yield request
            else:
                counted.duplicates += 1


def _sample(of: VariantRowCounts, answer: tuple[str, int], numbers: random.Random) -> None:
    """Keep a uniform random sample of the answers."""
    if len(of.answers) < SAMPLED_ANSWERS:
        of.answers.append(answer)
    elif (place := numbers.randrange(of.cached)) < SAMPLED_ANSWERS:
        of.answers[place] = answer


class _SeenTexts:
    """Set of texts seen before, in a temporary file that ends with this process."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768;"
            "CREATE TABLE seen (hash BLOB PRIMARY KEY) WITHOUT ROWID; BEGIN"
        )

    def is_new(self, kind: bytes, text: bytes) -> bool:
        """Add a text; return True if it was not seen before."""
        digest = blake2b(text, digest_size=_HASH_BYTES, person=kind).digest()
        return self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount == 1
