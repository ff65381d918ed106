"""Options of ``dspyq batch run`` about its lane."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import typer

from dspyq.batch.options import in_flight_rows
from dspyq.config.lanes import check_hour, split_lane
from dspyq.config.settings import get_settings
from dspyq.core.wall_clock import find_timezone


class LaneChoice(StrEnum):
    """Lanes that a batch can be run in, beside live calls."""

    provider = "provider"
    provider_live = "provider,live"
    provider_stop = "provider,stop"
    flex = "flex"


class LaneOptions(NamedTuple):
    """A batch's lane, as ``BatchOptions`` has it.

    Attributes:
        lane: The lane; empty for live calls.
        rest_goes_live: Whether what its money buys too little of at once is made live.
        finish_by: The hour by which every row is to be there, and its time zone; None for no hour.
        in_flight_rows: The most rows on their way, by default.
    """

    lane: str
    rest_goes_live: bool
    finish_by: tuple[str, str] | None
    in_flight_rows: int


def options_of_lane(lane: LaneChoice | None, finish_by: str | None, timezone: str) -> LaneOptions:
    """Return what the options state, with the configuration's hour where they state none.

    Args:
        lane: ``--lane``.
        finish_by: ``--finish-by``.
        timezone: The time zone of the hour.

    Raises:
        typer.BadParameter: If the hour or its time zone is none.
    """
    settings = get_settings()
    hour: tuple[str, str] | None = None
    if finish_by is not None:
        try:
            hour = check_hour(finish_by), find_timezone(timezone).key
        except ValueError as error:
            raise typer.BadParameter(f"--finish-by: {error}") from None
    elif lane is not None and settings.lane.finish_by is not None:
        hour = settings.lane.finish_by, settings.budget.timezone
    name, rest_goes_live = split_lane(lane.value if lane is not None else "")
    return LaneOptions(name, rest_goes_live, hour, in_flight_rows(name))
