"""How the start of a stack is shown: a line for each part as it is ready."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape


class Steps:
    """Prints a line for each part of a stack.

    Args:
        console: Where.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def starting(self, part: str) -> Iterator[None]:
        """Show that a part is being started, where somebody watches."""
        with self._console.status(f"starting {part}"):
            yield

    def ready(self, part: str, where: str, what: str, seconds: float | None = None) -> None:
        """Print that a part is ready.

        Args:
            part: Its name, a word.
            where: Its address or command.
            what: What it is.
            seconds: How long it took to start.
        """
        details = ", ".join(filter(None, (what, "" if seconds is None else f"{seconds:.1f} s")))
        self._console.print(
            f"  [green]✓[/] [bold]{part:<7}[/] {escape(where)}  [dim]{escape(details)}[/]",
            soft_wrap=True,
            highlight=False,
        )
