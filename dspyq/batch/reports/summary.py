"""Summary of a batch from OUT and its journal: read once, in constant memory, even while the batch runs.

It contains no inputs, no answers and no error texts; of users' data, only the custom ids of failed rows.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from dspyq.batch.clusters import read_clusters
from dspyq.batch.entry import EntryState
from dspyq.batch.journal import journal_path
from dspyq.batch.reports.comparison import Comparison, Pairs
from dspyq.batch.reports.histogram import Histogram
from dspyq.core.money import to_nano_usd
from dspyq.errors import InvalidFile

_SHOWN_FAILED_ROWS = 50
_MOST_BARS = 96
_BAR_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 86_400)


@dataclass
class VariantSummary:
    """Results of a variant's rows.

    Attributes:
        variant: The variant's name.
        model: Its model as the provider names it; empty where no row was answered.
        computed: Rows that runs of this batch answered.
        cached: Rows answered from the cache.
        joined: Rows that shared another caller's run.
        fallbacks: Rows of these whose answer is a fallback's, not the variant's own.
        truncated: Rows of these whose answer was cut off at its model's max_tokens.
        failed_by_type: The others, by the type of their error.
        cost_nano_usd: Total cost of all of them.
        prompt_tokens: Tokens sent by the batch's own runs.
        completion_tokens: Tokens generated for them.
        durations: Durations of the batch's own runs, in seconds.
    """

    variant: str
    model: str = ""
    computed: int = 0
    cached: int = 0
    joined: int = 0
    fallbacks: int = 0
    truncated: int = 0
    failed_by_type: Counter[str] = field(default_factory=Counter)
    cost_nano_usd: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    durations: Histogram = field(default_factory=Histogram)

    @property
    def ok(self) -> int:
        """Rows with an answer."""
        return self.computed + self.cached + self.joined

    @property
    def failed(self) -> int:
        """Rows with an error."""
        return self.failed_by_type.total()

    @property
    def hit_rate(self) -> float | None:
        """The share of answers that needed no run of their own."""
        return (self.cached + self.joined) / self.ok if self.ok else None


class TimelineBar(NamedTuple):
    """Rows finished in one span of time.

    Attributes:
        starts_at: Its first second, since 1970.
        computed: Rows that runs of this batch answered.
        shared: Rows answered from the cache or by another's run.
        failed: Rows with an error.
    """

    starts_at: float
    computed: int
    shared: int
    failed: int


@dataclass(frozen=True)
class Timeline:
    """Rows finished over time.

    Attributes:
        bar_seconds: Length of each span.
        bars: The spans, without gaps.
    """

    bar_seconds: int
    bars: tuple[TimelineBar, ...]


class ShipmentSpan(NamedTuple):
    """A shipment of the batch's models while it ran: several batches may share one.

    Attributes:
        name: Its name.
        model: The model's table.
        lines: Its calls.
        filled_at: When no further call was added, in seconds since 1970; as the others.
        submitted_at: When its provider had it; 0 before.
        ended_at: When its provider had ended it; 0 before.
        state: The provider's word for its end, or its state so far.
        answered: Calls that were answered.
        failed: Calls that failed for good.
        unanswered: Calls that the provider did not execute.
    """

    name: str
    model: str
    lines: int
    filled_at: float
    submitted_at: float
    ended_at: float
    state: str
    answered: int
    failed: int
    unanswered: int


class FailedRow(NamedTuple):
    """A row that failed.

    Attributes:
        custom_id: The row's own id.
        variant: Its variant; None where it could not be asked.
        error_type: The type of its error.
        is_retryable: Whether a retry can help.
    """

    custom_id: str
    variant: str | None
    error_type: str
    is_retryable: bool


@dataclass
class Summary:
    """Summary of a batch.

    Attributes:
        output: OUT.
        batch_id: The batch's id; empty if its journal is gone.
        program: The program's name.
        lines: Lines of OUT: one for each row, or for each row and variant.
        left: Rows that are read and have no line yet.
        unasked_by_type: Rows that could not be sent, by the type of their error.
        retryable: Failed rows for which a retry can help.
        variants: Results of each variant's rows, the control first.
        timeline: Rows finished over time; None without a journal.
        shipments: Shipments to providers, the one that was filled first at the front.
        failed_rows: Some of the failed rows.
        comparisons: With ``--paired``, each other variant compared with the control.
    """

    output: Path
    batch_id: str = ""
    program: str = ""
    lines: int = 0
    left: int = 0
    unasked_by_type: Counter[str] = field(default_factory=Counter)
    retryable: int = 0
    variants: list[VariantSummary] = field(default_factory=list)
    timeline: Timeline | None = None
    shipments: list[ShipmentSpan] = field(default_factory=list)
    failed_rows: list[FailedRow] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def ok(self) -> int:
        """Rows with an answer."""
        return sum(variant.ok for variant in self.variants)

    @property
    def failed_by_type(self) -> Counter[str]:
        """Rows with an error, by its type."""
        return sum((variant.failed_by_type for variant in self.variants), self.unasked_by_type.copy())

    @property
    def failed(self) -> int:
        """Rows with an error."""
        return self.failed_by_type.total()

    @property
    def cost_nano_usd(self) -> int:
        """Total cost of all rows."""
        return sum(variant.cost_nano_usd for variant in self.variants)

    @property
    def shared(self) -> int:
        """Rows answered from the cache or by another's run."""
        return sum(variant.cached + variant.joined for variant in self.variants)


def summarize(output: Path) -> Summary:
    """Read a batch's OUT and journal.

    Raises:
        InvalidFile: If OUT cannot be read, or holds something else.
    """
    summary = Summary(output)
    names: tuple[str, ...] = ()
    pairs = None
    if (path := journal_path(output)).exists():
        names, pairs = _read_journal(path, summary)
    variants = {name: VariantSummary(name) for name in names}
    for line in _lines(output):
        _add(line, summary, variants, pairs)
    summary.variants = [variant for variant in variants.values() if variant.ok or variant.failed]
    if pairs is not None and len(summary.variants) > 1:
        control, *others = summary.variants
        summary.comparisons = [pairs.compare(control.variant, other.variant) for other in others]
    return summary


def _lines(output: Path) -> Iterator[dict[str, Any]]:
    try:
        with output.open("rb") as file:
            for number, text in enumerate(file, start=1):
                try:
                    line = orjson.loads(text)
                    line["status"], line["metadata"]["row"]
                except (orjson.JSONDecodeError, TypeError, KeyError):
                    if not text.endswith(b"\n"):
                        return  # it is being written
                    raise InvalidFile(f"{output}, line {number}: no line of a batch's output") from None
                yield line
    except OSError as error:
        raise InvalidFile(f"cannot read {output}: {error.strerror}") from None


def _add(line: Mapping[str, Any], summary: Summary, variants: dict[str, VariantSummary], pairs: Pairs | None) -> None:
    summary.lines += 1
    metadata, error = line["metadata"], line["error"]
    name = metadata.get("variant")
    if error is not None:
        summary.retryable += bool(error["retryable"])
        if len(summary.failed_rows) < _SHOWN_FAILED_ROWS:
            summary.failed_rows.append(FailedRow(line["custom_id"], name, error["type"], bool(error["retryable"])))
    if name is None:
        summary.unasked_by_type[error["type"]] += 1
        return
    summary.program = summary.program or metadata["program"]
    variant = variants.setdefault(name, VariantSummary(name))
    variant.cost_nano_usd += to_nano_usd(metadata["cost_usd"] or 0.0)
    if not metadata["cached"]:
        variant.prompt_tokens += metadata["usage"]["prompt_tokens"]
        variant.completion_tokens += metadata["usage"]["completion_tokens"]
    if error is not None:
        variant.failed_by_type[error["type"]] += 1
        return
    is_fallback = bool(metadata.get("fallback"))
    variant.fallbacks += is_fallback
    variant.truncated += bool(metadata.get("is_truncated"))
    variant.model = variant.model or metadata["model"]
    if not metadata["cached"]:
        variant.computed += 1
        variant.durations.add(metadata["duration_seconds"])
    elif metadata["cache_level"] == "joined":
        variant.joined += 1
    else:
        variant.cached += 1
    if pairs is not None and not is_fallback:
        pairs.add(line["outputs"], metadata)


def _read_journal(path: Path, summary: Summary) -> tuple[tuple[str, ...], Pairs | None]:
    """Read the facts that only the journal holds; return the variants in their order, and the pairs if it has some."""
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        facts = dict(database.execute("SELECT name, value FROM meta"))
        (summary.left,) = database.execute("SELECT count(*) FROM entries WHERE state < ?", (EntryState.OK,)).fetchone()
        summary.timeline = _timeline(database)
        identity = orjson.loads(facts.get("identity", "{}"))
        pairs = None
        if identity.get("is_paired") == "True":
            pairs = Pairs(read_clusters(database))
        database.close()
    except sqlite3.Error as error:
        raise InvalidFile(f"cannot read {path}: {error}") from None
    summary.batch_id = facts.get("batch_id", "")
    shipments = orjson.loads(facts.get("shipments", "{}"))
    spans = [ShipmentSpan(name, *(of[part] for part in ShipmentSpan._fields[1:])) for name, of in shipments.items()]
    summary.shipments = sorted(spans, key=lambda span: span.filled_at)
    summary.program = identity.get("program", "")
    _, experiment = orjson.loads(identity.get("experiment", "[null, []]"))
    return tuple(name for name, *_ in experiment), pairs


def _timeline(database: sqlite3.Connection) -> Timeline | None:
    first, last = database.execute("SELECT min(done_at), max(done_at) FROM entries").fetchone()
    if first is None:
        return None
    width = next((seconds for seconds in _BAR_SECONDS if (last - first) / seconds < _MOST_BARS), _BAR_SECONDS[-1])
    counts = database.execute(
        "SELECT CAST(done_at / ? AS INTEGER) AS bar, sum(state = ? AND outcome = 'computed'), "
        "sum(state = ? AND outcome != 'computed'), sum(state > ?) FROM entries WHERE done_at IS NOT NULL GROUP BY bar",
        (width, EntryState.OK, EntryState.OK, EntryState.OK),
    )
    found = {bar: numbers for bar, *numbers in counts}
    bars = range(int(first // width), int(last // width) + 1)
    return Timeline(width, tuple(TimelineBar(bar * width, *found.get(bar, (0, 0, 0))) for bar in bars))
