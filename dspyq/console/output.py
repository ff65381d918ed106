"""How commands show what they found: a table to read, or JSON for machines."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
import typer
from rich.console import Console
from rich.table import Table

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

console = Console()
#: A text of so many is not broken where a table is too wide.
_SHORT_CHARACTERS = 12


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    typer.echo(orjson.dumps(value, default=str).decode())


def print_count(what: str, number: int, *, as_json: bool) -> None:
    """Print how many were done, as in "3 forgotten"."""
    if as_json:
        print_json({what: number})
    else:
        console.print(f"{number:,} {what}")


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table: text to the left, what looks like a number to the right; a column without any text is left out."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    shown = [(name, cells) for name, *cells in zip(columns, *rows, strict=True) if any(cells) or not rows]
    for name, cells in shown:
        is_number = bool(rows) and all(map(_looks_like_a_number, cells))
        is_short = max(map(len, cells), default=0) <= _SHORT_CHARACTERS
        justify: Literal["left", "right"] = "right" if is_number else "left"
        table.add_column(name, justify=justify, no_wrap=is_number or is_short, overflow="fold")
    for row in zip(*(cells for _, cells in shown), strict=True):
        table.add_row(*row)
    console.print(table)


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
