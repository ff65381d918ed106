"""OUT.journal: everything durable about a batch's progress, in SQLite beside OUT.

It holds ids, hashes and positions; of what users wrote only custom ids and, with ``--ordered``, lines that wait for
their turn. How many rows were read, how long OUT is and what was spent are read off the entries, so that they cannot
disagree with them. Not for threads.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from dspyq.batch.entry import Entry, State
from dspyq.batch.output_lines import Line
from dspyq.errors import BatchRefused, OutputInUse

_VERSION = "1"
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- Which row has a custom id: the first that stated it.
CREATE TABLE ids (custom_id TEXT PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID;
-- state: see State. start, length: where in OUT its line is; NULL where that waits in lines, or there is none yet.
-- cost_nano_usd and tokens: what was paid for it, also while it is not done. done_at: seconds since 1970. outcome: see
-- Line.
CREATE TABLE entries (
  number INTEGER PRIMARY KEY, row INTEGER NOT NULL, custom_id TEXT NOT NULL, variant INTEGER, input_hash BLOB,
  state INTEGER NOT NULL, task_id TEXT, is_claimed INTEGER NOT NULL, cost_nano_usd INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, start INTEGER, length INTEGER, done_at REAL,
  outcome TEXT
);
CREATE INDEX questions ON entries (input_hash) WHERE input_hash IS NOT NULL;
CREATE INDEX to_take ON entries (number) WHERE state < 2;
-- What the ledger is to be told: the costs of these tasks are on rows now.
CREATE TABLE receipts (task_id TEXT PRIMARY KEY, receipt TEXT NOT NULL) WITHOUT ROWID;
-- Lines that wait for their turn.
CREATE TABLE lines (number INTEGER PRIMARY KEY, line BLOB NOT NULL);
"""
_SET_UP = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -16384;
"""
#: Questions are looked up by so many: one statement, which is prepared once; NULL, for none, is no question's hash.
_QUESTIONS_AT_ONCE = 500
_WANTED = f"WITH wanted (input_hash) AS (VALUES {', '.join(['(?)'] * _QUESTIONS_AT_ONCE)})"
_LEADERS = f"""
{_WANTED} SELECT wanted.input_hash, number, state, start, length FROM wanted JOIN entries ON number =
(SELECT min(number) FROM entries AS other WHERE other.input_hash = wanted.input_hash)
"""  # noqa: S608 - a constant
_AWAITED = f"""
{_WANTED} SELECT input_hash FROM wanted WHERE EXISTS
(SELECT 1 FROM entries WHERE entries.input_hash = wanted.input_hash AND state = {State.WAITING:d})
"""  # noqa: S608 - a constant
_COLUMNS = (
    "number, row, custom_id, variant, input_hash, state, task_id, is_claimed, cost_nano_usd, prompt_tokens, "
    "completion_tokens"
)
_PUT = f"""
INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (number) DO UPDATE SET
  variant = excluded.variant, input_hash = excluded.input_hash, state = excluded.state, task_id = excluded.task_id,
  is_claimed = excluded.is_claimed, cost_nano_usd = excluded.cost_nano_usd, prompt_tokens = excluded.prompt_tokens,
  completion_tokens = excluded.completion_tokens
"""  # noqa: S608 - a constant
_LAND = f"""
INSERT INTO entries ({_COLUMNS}, outcome, start, length, done_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (number) DO UPDATE SET
  state = excluded.state, task_id = excluded.task_id, is_claimed = excluded.is_claimed,
  cost_nano_usd = excluded.cost_nano_usd, outcome = excluded.outcome, prompt_tokens = excluded.prompt_tokens,
  completion_tokens = excluded.completion_tokens, start = excluded.start, length = excluded.length,
  done_at = excluded.done_at
"""  # noqa: S608 - a constant


class Place(NamedTuple):
    """Where in OUT a line is.

    Attributes:
        start: Its first byte.
        length: Its bytes.
    """

    start: int
    length: int


class Leader(NamedTuple):
    """The entry that answers a question for all entries of the batch that ask it.

    Attributes:
        number: Its number.
        state: Where it is.
        place: Where its line is in OUT; None where there is none yet, or it waits for its turn.
    """

    number: int
    state: State
    place: Place | None


class Totals(NamedTuple):
    """What the entries of a batch came to, by state and outcome.

    Attributes:
        state: How they ended, or where they are.
        outcome: As of ``Line``; None of those under way.
        entries: How many.
        cost_nano_usd: What they cost.
        prompt_tokens: What their own runs sent.
        completion_tokens: What their own runs generated.
    """

    state: State
    outcome: str | None
    entries: int
    cost_nano_usd: int
    prompt_tokens: int
    completion_tokens: int


def journal_path(output: Path) -> Path:
    """Return where the journal of an output is."""
    return output.with_name(f"{output.name}.journal")


class Journal:
    """The journal of one output, locked against other processes until it is closed.

    Args:
        output: OUT.

    Attributes:
        is_new: Whether no batch was begun in it.

    Raises:
        BatchRefused: If another process works on this output, or it is no journal of this version.
    """

    def __init__(self, output: Path) -> None:
        self.path = journal_path(output)
        self._lock = _locked(self.path)
        self._database = sqlite3.connect(self.path, isolation_level=None)
        try:
            self._database.executescript(_SET_UP)
            self.is_new = not self._database.execute("SELECT 1 FROM sqlite_schema").fetchone()
            self._database.executescript(f"BEGIN;{_TABLES}" if self.is_new else "BEGIN")
            version = _VERSION if self.is_new else self.meta("version")
        except sqlite3.DatabaseError as error:
            self.close()
            raise BatchRefused(f"{self.path} cannot be used as a journal: {error}; choose another --output") from None
        if version != _VERSION:
            self.close()
            raise BatchRefused(f"{self.path} was written by another version of dspyq: choose another --output")

    def close(self) -> None:
        """Forget what is not committed, and let another process work on it."""
        self._database.close()  # before the lock: closing a file gives SQLite's own locks on it up
        os.close(self._lock)

    def commit(self) -> None:
        """Make everything up to here last; OUT must be on the disk before."""
        self._database.execute("COMMIT")
        self._database.execute("BEGIN")

    def meta(self, name: str) -> str | None:
        """Return one of the batch's own facts."""
        found = self._database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def set_meta(self, **facts: str) -> None:
        """State facts of the batch."""
        self._database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts.items())

    def begin(self, identity: dict[str, str], *, batch_id: str) -> None:
        """State what the batch is; a journal says so for good."""
        self.set_meta(version=_VERSION, batch_id=batch_id, identity=orjson.dumps(identity).decode(), **self.runner())

    def work_on(self) -> None:
        """Say which process works on it now."""
        self.set_meta(**self.runner())

    def runner(self) -> dict[str, str]:
        """Return which process that is."""
        return {"host": socket.gethostname(), "pid": str(os.getpid())}

    def batch_id(self) -> str:
        """Return the batch's id."""
        return self.meta("batch_id") or ""

    def identity(self) -> dict[str, str]:
        """Return what the batch is."""
        identity: dict[str, str] = orjson.loads(self.meta("identity") or "{}")
        return identity

    def rows_read(self) -> int:
        """Return how many rows have entries."""
        return int(self._scalar("SELECT coalesce(max(row), 0) FROM entries"))

    def output_bytes(self) -> int:
        """Return how much of OUT it vouches for."""
        return int(self._scalar("SELECT coalesce(max(start + length), 0) FROM entries"))

    def totals(self) -> list[Totals]:
        """Return what the entries came to."""
        rows = self._database.execute(
            "SELECT state, outcome, count(*), total(cost_nano_usd), total(prompt_tokens), total(completion_tokens) "
            "FROM entries GROUP BY state, outcome"
        )
        return [Totals(State(row[0]), row[1], *map(int, row[2:])) for row in rows]

    def take_ids(self, rows: Sequence[tuple[str, int]]) -> dict[str, int]:
        """Note custom ids of rows; return those that an earlier row has, with its number."""
        new = self._database.executemany("INSERT OR IGNORE INTO ids VALUES (?, ?)", rows).rowcount
        if new == len(rows):
            return {}
        taken = {}
        for custom_id, row in rows:
            owner = self._scalar("SELECT row FROM ids WHERE custom_id = ?", custom_id)
            if owner != row:
                taken[custom_id] = owner
        return taken

    def leaders(self, input_hashes: Iterable[bytes]) -> dict[bytes, Leader]:
        """Return of these questions those that have entries, each with its first."""
        return {
            row[0]: Leader(row[1], State(row[2]), None if row[3] is None else Place(row[3], row[4]))
            for row in self._of_questions(_LEADERS, input_hashes)
        }

    def has_waiting(self) -> bool:
        """Return whether any entry waits for another."""
        return bool(self._scalar("SELECT EXISTS (SELECT 1 FROM entries WHERE state = ?)", State.WAITING))

    def awaited(self, input_hashes: Iterable[bytes]) -> set[bytes]:
        """Return of these questions those that entries wait for."""
        return {row[0] for row in self._of_questions(_AWAITED, input_hashes)}

    def waiting(self, input_hash: bytes, after: int, limit: int) -> list[Entry]:
        """Return the entries that wait for a question, those behind a number first."""
        rows = self._database.execute(
            f"SELECT {_COLUMNS} FROM entries WHERE input_hash = ? AND number > ? AND state = ? "  # noqa: S608 - a constant
            "ORDER BY number LIMIT ?",
            (input_hash, after, State.WAITING, limit),
        )
        return [_entry(row) for row in rows]

    def to_take(self, first: int, last: int) -> dict[int, Entry]:
        """Return the entries of a range that are neither done nor wait for another."""
        rows = self._database.execute(
            f"SELECT {_COLUMNS} FROM entries WHERE state < 2 AND number BETWEEN ? AND ?",  # noqa: S608 - a constant
            (first, last),
        )
        return {row[0]: _entry(row) for row in rows}

    def put(self, entries: Iterable[Entry]) -> None:
        """Note entries that are not done, as they are."""
        self._database.executemany(_PUT, [_columns(entry, entry.state) for entry in entries])

    def land(self, lines: Sequence[Line], starts: Sequence[int | None], done_at: float) -> None:
        """Note entries as done.

        Args:
            lines: Their lines.
            starts: Where in OUT each is; None where it waits for its turn.
            done_at: Seconds since 1970.
        """
        self._database.executemany(
            _LAND,
            [
                (*_columns(entry, state), outcome, start, None if start is None else len(text), done_at)
                for (entry, state, outcome, text), start in zip(lines, starts, strict=True)
            ],
        )

    def keep_lines(self, lines: Iterable[Line]) -> None:
        """Keep lines until it is their turn."""
        self._database.executemany(
            "INSERT OR REPLACE INTO lines VALUES (?, ?)", [(line.entry.number, line.text) for line in lines]
        )

    def kept_line(self, number: int) -> bytes | None:
        """Return a line that waits for its turn."""
        found = self._database.execute("SELECT line FROM lines WHERE number = ?", (number,)).fetchone()
        return None if found is None else found[0]

    def kept_lines(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return lines that wait, by their numbers, those behind a number first."""
        rows = self._database.execute(
            "SELECT number, line FROM lines WHERE number > ? ORDER BY number LIMIT ?", (after, limit)
        )
        return rows.fetchall()

    def placed(self, places: Sequence[tuple[int, Place]]) -> None:
        """Note where in OUT lines are that waited."""
        self._database.executemany("DELETE FROM lines WHERE number = ?", [(number,) for number, _ in places])
        self._database.executemany(
            "UPDATE entries SET start = ?, length = ? WHERE number = ?", [(*place, number) for number, place in places]
        )

    def places(self) -> int:
        """Return how many lines are in OUT."""
        return self._scalar("SELECT count(start) FROM entries")

    def keep_receipts(self, receipts: Mapping[str, str]) -> None:
        """Note, by their tasks, costs that are on rows from this commit on."""
        self._database.executemany("INSERT OR REPLACE INTO receipts VALUES (?, ?)", receipts.items())

    def receipts(self) -> dict[str, str]:
        """Return those that the ledger was not told of yet."""
        return dict(self._database.execute("SELECT task_id, receipt FROM receipts"))

    def drop_receipts(self, task_ids: Iterable[str]) -> None:
        """Forget those that the ledger was told of."""
        self._database.executemany("DELETE FROM receipts WHERE task_id = ?", [(each,) for each in task_ids])

    def _of_questions(self, statement: str, input_hashes: Iterable[bytes]) -> Iterator[tuple[Any, ...]]:
        questions: list[bytes | None] = list(dict.fromkeys(input_hashes))
        for start in range(0, len(questions), _QUESTIONS_AT_ONCE):
            some = questions[start : start + _QUESTIONS_AT_ONCE]
            some += [None] * (_QUESTIONS_AT_ONCE - len(some))
            yield from self._database.execute(statement, some)

    def _scalar(self, statement: str, *parameters: str | int) -> int:
        value: int = self._database.execute(statement, parameters).fetchone()[0]
        return value


def _locked(path: Path) -> int:
    """Open a file and lock it.

    Raises:
        BatchRefused: If another process holds it, which is named, or it cannot be opened.
    """
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise BatchRefused(f"{path} cannot be written: {error.strerror}; choose another --output") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise OutputInUse(f"another process works on this output{_holder(path)}: wait for it, or stop it") from None
    return lock


def _holder(path: Path) -> str:
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        facts = dict(database.execute("SELECT name, value FROM meta WHERE name IN ('host', 'pid')"))
        database.close()
    except sqlite3.Error:  # it has only just begun
        return ""
    return f" (process {facts['pid']} on {facts['host']})" if len(facts) == 2 else ""  # noqa: PLR2004 - both


def _columns(entry: Entry, state: State) -> tuple[str | int | bytes | None, ...]:
    return (
        entry.number,
        entry.row,
        entry.custom_id,
        entry.variant,
        entry.input_hash,
        state,
        entry.task_id,
        entry.is_claimed,
        entry.paid_nano_usd,
        entry.prompt_tokens,
        entry.completion_tokens,
    )


def _entry(row: tuple[Any, ...]) -> Entry:
    number, row_number, custom_id, variant, input_hash, state, task_id, is_claimed, *paid = row
    paid_nano_usd, prompt_tokens, completion_tokens = paid
    return Entry(
        number,
        row_number,
        custom_id,
        variant,
        input_hash,
        state=State(state),
        task_id=task_id,
        is_claimed=bool(is_claimed),
        paid_nano_usd=paid_nano_usd,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )
