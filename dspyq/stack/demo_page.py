"""Output of the demo: lines and a table for people, or JSON lines for machines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from dspyq.console.output import PlainConsole, dollars, percent, print_json, print_table, seconds
from dspyq.console.steps import Steps
from dspyq.errors import DspyqError
from dspyq.stack.demo_configuration import DemoModel
from dspyq.stack.demo_door import Exchanged

if TYPE_CHECKING:
    from dspyq import Prediction
    from dspyq.cache.statistics import VariantStatistics

_HEADINGS = ("review", "variant", "answer", "cache", "wait", "tokens", "cost")
#: Alignment and width of each column except the first, which takes the rest.
_LAYOUTS = ("<10", "<8", "<6", ">8", ">6", ">9")
_MARGIN, _GAP = "  ", "  "
_SHORTEST_REVIEW, _LONGEST_REVIEW = 16, 70
_EXACT_MILLISECONDS = 10


@dataclass(frozen=True)
class Landed:
    """Result of one call.

    Attributes:
        review: The input.
        wait_seconds: Seconds that its caller waited.
        prediction: The answer; None if it failed.
        error: The error, if it failed.
    """

    review: str
    wait_seconds: float
    prediction: Prediction | None = None
    error: Exception | None = None

    @property
    def failure(self) -> str:
        """The error in one line."""
        # Ours begin with the type of what the program raised.
        said = str(self.error) if isinstance(self.error, DspyqError) else f"{type(self.error).__name__}: {self.error}"
        return said.partition("\n")[0]


class Page(ABC):
    """Output of the demo's progress and results.

    Attributes:
        progress: Console for the start of the stack.
        steps: The lines of that start.
    """

    def __init__(self, progress: Console) -> None:
        self.progress = progress
        self.steps = Steps(progress)

    def begin(self) -> None:
        """Show the introduction."""
        subtitle = "a DSPy program as Celery jobs, cached, on two variants"
        self.progress.print(Text.assemble("\n", ("dspyq demo", "bold"), f"  {subtitle}\n"))

    @abstractmethod
    def begin_round(self, number: int, calls: int) -> None:
        """Show the start of a round of calls."""

    @abstractmethod
    def show(self, number: int, landed: Landed) -> None:
        """Show a finished call of a round."""

    @abstractmethod
    def show_http(self, command: str, ready_seconds: float, exchanged: Exchanged) -> None:
        """Show a question over HTTP and its reply.

        Args:
            command: The command of the door.
            ready_seconds: Seconds that it took to start.
            exchanged: The question and its reply.
        """

    @abstractmethod
    def end(self, statistics: Sequence[VariantStatistics], model: DemoModel) -> None:
        """Show each variant's statistics and the remarks on the model."""


class JsonPage(Page):
    """Prints a line of JSON for each call and each variant; everything else goes to the standard error."""

    def __init__(self) -> None:
        super().__init__(PlainConsole(stderr=True))

    def begin_round(self, number: int, calls: int) -> None:
        """Print nothing: each call's line contains its round."""

    def show(self, number: int, landed: Landed) -> None:
        """Print a call."""
        line = {"event": "prediction", "round": number, "text": landed.review, "wait_seconds": landed.wait_seconds}
        if landed.prediction is None:
            print_json({**line, "error": landed.failure})
            return
        metadata = landed.prediction.metadata
        said = {**asdict(metadata), "cached": metadata.cached}
        print_json({**line, "outputs": landed.prediction.outputs, "metadata": said})

    def show_http(self, command: str, ready_seconds: float, exchanged: Exchanged) -> None:
        """Print the question and its reply."""
        print_json({"event": "http", "command": command, "ready_seconds": ready_seconds, **asdict(exchanged)})

    def end(self, statistics: Sequence[VariantStatistics], model: DemoModel) -> None:
        """Print each variant."""
        for variant in statistics:
            derived = {name: getattr(variant, name) for name in ("calls", "hits", "hit_rate", "success_rate")}
            print_json({"event": "variant", **asdict(variant), **derived})
        for remark in model.remarks:
            self.progress.print(remark)


class TextPage(Page):
    """Prints a line for each call and a table of the variants."""

    def __init__(self) -> None:
        super().__init__(PlainConsole(highlight=False))
        self._http: tuple[str, Exchanged] | None = None

    def begin_round(self, number: int, calls: int) -> None:
        """Print the round's headings."""
        calls_shown = f"{calls} reviews at once; each text decides its variant"
        subtitle = calls_shown if number == 1 else "the same reviews again"
        self.progress.print(Text.assemble("\n", (f"Round {number}", "bold"), f"  {subtitle}\n"))
        self.progress.print(self._line(*_HEADINGS), style="dim")

    def show(self, number: int, landed: Landed) -> None:
        """Print a call."""
        del number
        wait = _milliseconds(landed.wait_seconds)
        if landed.prediction is None:
            line = f"{self._line(landed.review)}{_GAP}failed after {wait}{_GAP}{landed.failure}"
            self.progress.print(line, style="red", no_wrap=True, overflow="ellipsis")
            return
        metadata = landed.prediction.metadata
        answer = ", ".join(map(str, landed.prediction.outputs.values()))
        tokens = "–" if metadata.cached else str(metadata.usage.total_tokens)
        level, cost = metadata.cache_level or "–", dollars(metadata.cost_usd)
        line = self._line(landed.review, metadata.variant, answer, level, wait, tokens, cost)
        self.progress.print(line, style="green" if metadata.cached else "")

    def show_http(self, command: str, ready_seconds: float, exchanged: Exchanged) -> None:
        """Keep them for the end, which is what readers see last."""
        del ready_seconds
        self._http = command, exchanged

    def end(self, statistics: Sequence[VariantStatistics], model: DemoModel) -> None:
        """Print the table of the variants, the remarks on the model, and the question over HTTP."""
        columns = ["variant", "calls", "ok", "failed", "success rate", "mean run", "hit rate", "cost"]
        rows = [
            [
                variant.variant,
                str(variant.calls),
                str(variant.successes),
                str(variant.failures),
                percent(variant.success_rate),
                seconds(variant.mean_duration_seconds),
                percent(variant.hit_rate),
                dollars(variant.cost_usd),
            ]
            for variant in statistics
        ]
        self.progress.print()
        print_table("Variants", columns, rows)
        self.progress.print()
        for remark in model.remarks:
            self.progress.print(remark, style="dim")
        if self._http:
            self._print_http(*self._http)

    def _print_http(self, command: str, exchanged: Exchanged) -> None:
        title = ("Any client can ask", "bold")
        self.progress.print(Text.assemble("\n", title, f"  through {command}; dspyq up keeps it running\n"))
        outputs = ", ".join(map(str, (exchanged.reply.get("outputs") or {}).values()))
        said = outputs or str(exchanged.reply.get("title", ""))
        for line in exchanged.curl.splitlines():
            self.progress.print(f"{_MARGIN}{line}", soft_wrap=True)
        self.progress.print(f"{_MARGIN}{exchanged.status}  {said}", style="green" if outputs else "red")

    def _line(self, review: str, *cells: str) -> str:
        """Lay a line out: the review takes what the other columns leave of the width."""
        taken = len(_MARGIN) + sum(len(_GAP) + int(layout[1:]) for layout in _LAYOUTS)
        width = min(_LONGEST_REVIEW, max(_SHORTEST_REVIEW, self.progress.width - taken))
        shown = review if len(review) <= width else review[: width - 1].rstrip() + "…"
        others = (f"{_GAP}{cell:{layout}}" for cell, layout in zip(cells, _LAYOUTS, strict=False))
        return f"{_MARGIN}{shown:<{width}}{''.join(others)}"


def _milliseconds(seconds_waited: float) -> str:
    milliseconds = seconds_waited * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= _EXACT_MILLISECONDS else f"{milliseconds:.2f} ms"
