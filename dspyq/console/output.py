"""Output of commands: a table for people, or JSON for machines.

All output may contain data of users, models and files. Therefore it is never treated as markup, control sequences are
escaped, a character that the stream's encoding lacks is escaped, and a closed pipe ends no command.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import orjson
import typer
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from dspyq.config.secrets import scrub
from dspyq.core.visible import escape_in_json, escape_non_ascii, visible, visible_line
from dspyq.errors import ConfigurationError, DspyqError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

#: Texts of up to so many characters are not broken in a wide table.
_SHORT_CHARACTERS = 12


class PlainConsole(Console):
    """Console without markup: brackets and colons have no meaning, and control characters are escaped."""

    def __init__(self, *, stderr: bool = False, highlight: bool = True) -> None:
        super().__init__(stderr=stderr, highlight=highlight, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of a renderable, without control sequences."""
        for segment in super().render(renderable, options):
            is_plain = segment.control or segment.text.isprintable()
            yield segment if is_plain else Segment(visible(segment.text), segment.style)


console = PlainConsole()
#: Rows in a file or a pipe are a line each.
_FILE_WIDTH = 1_000


def prepare_streams() -> None:
    """Make standard output and error accept every text and survive their readers; call this once, at the start."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _Stream(stream))
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit():
        console.width = int(columns)
    elif not console.is_terminal:
        console.width = _FILE_WIDTH


class _Stream(io.TextIOWrapper):
    r"""A standard stream that writes characters its encoding lacks as ``\u2713``, and nothing without a reader."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._before = stream  # it would close what both write to
        super().__init__(
            stream.buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=stream.line_buffering
        )

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            return super().write(text)
        except BrokenPipeError:
            self._write_to_nobody()
            return len(text)

    def flush(self) -> None:
        """Write buffered text."""
        try:
            super().flush()
        except BrokenPipeError:
            self._write_to_nobody()

    def _write_to_nobody(self) -> None:
        nobody = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nobody, self.fileno())
        os.close(nobody)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    print_json_text(orjson.dumps(value, default=str).decode())


def print_json_text(document: str) -> None:
    """Print JSON that is written already."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    _write(escape_in_json(document) if encoding.lower().startswith("utf") else escape_non_ascii(document), "\n")


def print_text(text: str, *, end: str = "\n") -> None:
    """Print a text of several lines, with control sequences escaped."""
    _write(visible(text), end)


def _write(text: str, end: str) -> None:
    if sys.stdout is not None:  # None where it was closed from the start
        sys.stdout.write(text + end)
        sys.stdout.flush()


def print_error(text: str) -> None:
    """Print an error as one line on the standard error."""
    print_errors(f"dspyq: {visible_line(scrub(text))}")


def print_errors(text: str) -> None:
    """Print lines on the standard error, with control sequences escaped."""
    typer.secho(visible(text), fg="red", file=sys.stderr)  # named: Click wraps one in ASCII anew


def print_faults(error: DspyqError) -> None:
    """Print each fault of an error as one line on the standard error."""
    for fault in error.faults if isinstance(error, ConfigurationError) else (str(error),):
        print_error(fault)


def print_count(what: str, number: int, *, as_json: bool) -> None:
    """Print a count, as in "3 forgotten"."""
    if as_json:
        print_json({what: number})
    else:
        console.print(f"{number:,} {what}")


def print_table(
    title: str, columns: list[str], rows: list[list[str]], *, spare: Sequence[str] = (), spare_in: str = "--json"
) -> None:
    """Print a table: text left-aligned, numbers right-aligned, without empty columns.

    Nothing is cut: on a narrow terminal long texts are folded, or lines exceed its width.

    Args:
        title: Its title.
        columns: The names of its columns.
        rows: Its rows, a text for each column.
        spare: Columns that are left out on a narrow terminal, one after another, until the others fit on a line each.
            A line below the table names them.
        spare_in: The option that shows them all the same.
    """
    left_out = _left_out(columns, rows, spare)
    kept = [index for index, name in enumerate(columns) if name not in left_out]
    columns, rows = [columns[index] for index in kept], [[row[index] for index in kept] for row in rows]
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    title, columns, rows = visible_line(title), _visible(columns), [_visible(row) for row in rows]
    shown = [(name, cells) for name, *cells in zip(columns, *rows, strict=True) if any(cells) or not rows]
    needed = 0
    for name, cells in shown:
        is_number = bool(rows) and all(map(_looks_like_a_number, cells))
        is_short = max(map(len, cells), default=0) <= _SHORT_CHARACTERS
        justify: Literal["left", "right"] = "right" if is_number else "left"
        table.add_column(name, justify=justify, no_wrap=is_number or is_short, overflow="fold")
        longest = max(map(cell_len, [name, *cells]))
        needed += 2 + (longest if is_number or is_short else max(cell_len(name), min(longest, _SHORT_CHARACTERS)))
    for row in zip(*(cells for _, cells in shown), strict=True):
        table.add_row(*row)
    table.width = needed if needed > console.width else None  # a width asked of print would be the terminal's at most
    console.print(table, crop=False)
    if left_out:
        console.print(f"Without {', '.join(left_out)}: use a wider terminal, or {spare_in}.")


def _left_out(columns: list[str], rows: list[list[str]], spare: Sequence[str]) -> list[str]:
    """Return the first of the spare columns, as many as have to go until a row is a line."""
    widths = {
        name: max(map(cell_len, [name, *cells])) for name, *cells in zip(columns, *rows, strict=True) if any(cells)
    }
    left_out = []
    for name in spare:
        if sum(widths.values()) + 2 * (len(widths) - 1) <= console.width:
            break
        if widths.pop(name, None):
            left_out.append(name)
    return left_out


def _visible(cells: list[str]) -> list[str]:
    return [visible_line(cell) for cell in cells]


def _looks_like_a_number(text: str) -> bool:
    return text[:1].isdigit() or text[:1] == "$" or text in {"–", "unknown"}


def percent(share: float | None) -> str:
    """Return a share for people."""
    return "–" if share is None else f"{share:.1%}"


def seconds(duration_seconds: float | None) -> str:
    """Return a duration for people."""
    return "–" if duration_seconds is None else f"{duration_seconds:.2f} s"


def dollars(amount_usd: float | None) -> str:
    """Return an amount for people; a fraction of a cent keeps its digits."""
    if amount_usd is None:
        return "unknown"
    return f"${amount_usd:.2f}" if amount_usd >= 1 or amount_usd == 0 else f"${amount_usd:.6f}"
