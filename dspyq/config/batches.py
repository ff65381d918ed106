"""``[batches.<name>]``: batches that run on a schedule."""

from __future__ import annotations

import functools
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, ConfigDict, Field, PositiveInt, field_validator, model_validator

from dspyq.config.lanes import LaneName, check_hour
from dspyq.config.models import Table, Usd
from dspyq.config.tenant_name import TenantName

if TYPE_CHECKING:  # only a configured batch needs the modules that parse its schedule
    from dspyq.core.crontab import Crontab
    from dspyq.core.window import Window

_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_Fraction = Annotated[float, Field(gt=0, le=1)]


class ScheduledBatch(Table):
    """A batch and its schedule.

    Attributes:
        name: The table's name.
        input: The file of rows, relative to the configuration file. ``{date}`` and ``{time}`` stand for those of the
            scheduled time, as in ``2026-11-24`` and ``2200``.
        output: The file of answers, likewise. Each scheduled time has one of its own.
        program: Which program answers; may be left out where there is one.
        variant: The variant that answers every row, in place of the assigned one.
        tenant: The tenant of its rows: its account, its cached answers, its books; none where left out.
        ordered: Whether answers stand in the order of the rows.
        paired: Whether every row goes through all variants.
        score: Whether the program's scorers score every answer.
        cluster: The field of a row that names its document or user, for the intervals of a paired one.
        max_usd: The most one run may cost.
        budget_share: The most it may use of what the daily budget has left.
        rate_share: The most it may use of the models' rate limits.
        window_text: The hours in which it runs, ``22:00-06:00``; at any time where left out.
        lane: How its model calls are made: live where left out, through the ``provider``'s batch interface, or at its
            ``flex`` tier. What the money of a ``provider`` lane buys too little of at once is made live, or with
            ``provider,stop`` not at all.
        finish_by: The hour by which every row is to be there, as in ``07:00``, in the time zone of its schedule;
            ``lane.finish_by`` where left out.
        priority: The turn of its rows, 0 (most urgent) to 9.
        schedule: When it starts: a crontab line of five fields.
        timezone: The time zone of window and schedule; that of ``[budget]`` where left out.
        catch_up: The most missed times that are run later: the latest ones, in order.
    """

    model_config = ConfigDict(populate_by_name=True)

    name: str
    input: Path
    output: Path
    program: str | None = None
    variant: str | None = None
    tenant: TenantName | None = None
    ordered: bool = False
    paired: bool = False
    score: bool = False
    cluster: Annotated[str, Field(min_length=1)] | None = None
    max_usd: Usd | None = None
    budget_share: _Fraction | None = None
    rate_share: _Fraction | None = None
    window_text: Annotated[str | None, Field(alias="window")] = None
    lane: LaneName | None = None
    finish_by: Annotated[str, AfterValidator(check_hour)] | None = None
    priority: Annotated[int, Field(ge=0, le=9)] = 9
    schedule: str
    timezone: str = "UTC"
    catch_up: Annotated[PositiveInt, Field(le=1000)] = 7

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        from dspyq.core.wall_clock import find_timezone  # noqa: PLC0415 - as above

        find_timezone(name)
        return name

    @field_validator("input", "output")
    @classmethod
    def _has_known_placeholders(cls, path: Path) -> Path:
        unknown = set(_PLACEHOLDER.findall(str(path))) - {"{date}", "{time}"}
        if unknown:
            raise ValueError(f"unknown {min(unknown)}: a path may hold {{date}} and {{time}}")
        return path

    @field_validator("schedule")
    @classmethod
    def _is_a_crontab_line(cls, line: str) -> str:
        from dspyq.core.crontab import Crontab  # noqa: PLC0415 - as above

        Crontab.parse(line, "UTC")
        return line

    @field_validator("window_text")
    @classmethod
    def _is_a_window(cls, text: str | None) -> str | None:
        from dspyq.core.window import Window  # noqa: PLC0415 - as above

        if text is not None:
            Window.parse(text, "UTC")
        return text

    @model_validator(mode="after")
    def _is_consistent(self) -> ScheduledBatch:
        if self.paired and self.variant is not None:
            raise ValueError("paired runs every variant: leave out variant")
        if self.cluster is not None and not self.paired:
            raise ValueError("cluster is for comparisons: set paired too, or leave it out")
        if self.finish_by is not None and self.lane is None:
            raise ValueError("finish_by is for batches with a lane: set lane too, or leave it out")
        needed = ["{date}", "{time}"] if self.crontab.fires_several_times_a_day else ["{date}"]
        missing = [placeholder for placeholder in needed if placeholder not in str(self.output)]
        if missing:
            raise ValueError(
                f"output needs {' and '.join(missing)}: each scheduled time is answered in a file of its own"
            )
        return self

    @functools.cached_property
    def crontab(self) -> Crontab:
        """Schedule of its starts."""
        from dspyq.core.crontab import Crontab  # noqa: PLC0415 - as above

        return Crontab.parse(self.schedule, self.timezone)

    @functools.cached_property
    def window(self) -> Window | None:
        """Hours in which it may run; None for any time."""
        from dspyq.core.window import Window  # noqa: PLC0415 - as above

        return Window.parse(self.window_text, self.timezone) if self.window_text is not None else None

    def files_of(self, shown: datetime) -> tuple[Path, Path]:
        """Return the input and output of a scheduled time, given as local time."""
        values = {"{date}": f"{shown:%Y-%m-%d}", "{time}": f"{shown:%H%M}"}

        def fill(path: Path) -> Path:
            return Path(_PLACEHOLDER.sub(lambda found: values[found.group()], str(path)))

        return fill(self.input), fill(self.output)
