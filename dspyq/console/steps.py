"""Progress display of a starting stack: a line for each part as it becomes ready."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text


class Steps:
    """Prints a line for each part of a stack.

    Args:
        console: The console.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def starting(self, part: str) -> Iterator[None]:
        """Show that a part is being started, on a terminal."""
        with self._console.status(f"starting {part}"):
            yield

    def ready(self, part: str, where: str, what: str, seconds: float | None = None) -> None:
        """Print that a part is ready.

        Args:
            part: Its name, a word.
            where: Its address or command.
            what: Its description.
            seconds: Time that it took to start.
        """
        details = ", ".join(filter(None, (what, "" if seconds is None else f"{seconds:.1f} s")))
        self._console.print(
            Text.assemble("  ", ("✓", "green"), " ", (f"{part:<7}", "bold"), f" {where}  ", (details, "dim")),
            soft_wrap=True,
            highlight=False,
        )
