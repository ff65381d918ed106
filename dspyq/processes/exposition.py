"""Prometheus pages of several workers as one: each sample gets the worker's name as a label.

Labels, not sums: a sum of counters falls when one worker is started again, and Prometheus would take that for a new
start of all of them. Each family keeps one HELP and one TYPE line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LABEL = "worker"
#: Samples of a family may have these after its name.
_SUFFIXES = ("_total", "_created", "_bucket", "_count", "_sum", "_info")


@dataclass
class _Family:
    head: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)


def merge_pages(pages: Iterable[tuple[str, str]]) -> str:
    """Merge pages in Prometheus's text format.

    Args:
        pages: The name of each worker, and its page.
    """
    families: dict[str, _Family] = {}
    for worker, page in pages:
        _add(families, worker, page)
    return "".join(f"{line}\n" for family in families.values() for line in (*family.head, *family.samples))


def _add(families: dict[str, _Family], worker: str, page: str) -> None:
    current = ""
    for line in page.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            _, kind, current, *_ = line.split(" ", 3)
            family = families.setdefault(current, _Family())
            if not any(each.startswith(f"# {kind} ") for each in family.head):
                family.head.append(line)
        elif line and not line.startswith("#"):
            families.setdefault(_family_of(line, current), _Family()).samples.append(_labelled(line, worker))


def _family_of(sample: str, current: str) -> str:
    """Return the family of a sample: the one whose head was read last, unless its name is another."""
    name = sample.partition("{")[0].partition(" ")[0]
    return current if name == current or name.removeprefix(current) in _SUFFIXES else name


def _labelled(sample: str, worker: str) -> str:
    label = f'{LABEL}="{worker}"'
    name, brace, rest = sample.partition("{")
    if brace and " " not in name:
        return f"{name}{{{label}{'' if rest.startswith('}') else ','}{rest}"
    name, _, value = sample.partition(" ")
    return f"{name}{{{label}}} {value}"
