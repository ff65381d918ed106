"""When a crontab line fires, against a clock on the wall that is looked at each minute."""

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspyq.core.crontab import Crontab, Occurrence
from tests.properties.profiles import examples
from tests.support.wall import MINUTE, ZONES, Wall, moments, seconds


@st.composite
def fields(draw, low, high):
    """A field of a line, and the numbers it stands for."""
    every = range(low, high + 1)
    match draw(st.sampled_from(["*", "*/n", "list", "range"])):
        case "*":
            return "*", set(every)
        case "*/n":
            step = draw(st.integers(1, high))
            return f"*/{step}", set(every[::step])
        case "list":
            numbers = draw(st.sets(st.integers(low, high), min_size=1, max_size=3))
            return ",".join(map(str, numbers)), numbers
        case _:
            first, last = sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high))))
            return f"{first}-{last}", set(range(first, last + 1))


@pytest.mark.property
@settings(max_examples=examples(15, 40))
@given(st.data())
def test_a_line_fires_by_local_time(data):
    zone = data.draw(st.sampled_from(ZONES))
    around = data.draw(moments(zone))
    (minute, minutes), (hour, hours) = data.draw(fields(0, 59)), data.draw(fields(0, 23))
    day_of_week, days = data.draw(fields(0, 6))
    wall = Wall(zone, around)
    due = set()
    shown = wall.first
    while shown < wall.last:  # every minute of the calendar, shown or not
        if shown.minute in minutes and shown.hour in hours and (shown.weekday() + 1) % 7 in days:
            due.add(wall.when(shown)[0])
        shown += MINUTE
    crontab = Crontab.parse(f"{minute} {hour} * * {day_of_week}", zone)
    after, until = around - 2 * 86_400, around + data.draw(st.integers(0, 2 * 86_400))
    expected = sorted(second for second in due if after < second <= until)
    found = crontab.latest(len(due) + 1, after=after, until=until)
    assert [each.due_at for each in found] == expected
    assert crontab.latest(3, after=after, until=until) == found[-3:]
    if expected:
        assert crontab.next_after(after) == found[0]
    for each in found[:3]:
        assert Occurrence.of_label(each.label, crontab.zone) == each


def test_a_time_that_is_skipped_fires_in_the_next_minute_that_exists():
    crontab = Crontab.parse("30 2 * * *", "Europe/Berlin")
    occurrence = crontab.next_after(seconds("2026-03-28 12:00", "Europe/Berlin"))
    assert occurrence.label == "2026-03-29T02:30"
    assert (
        datetime.fromtimestamp(occurrence.due_at, ZoneInfo("Europe/Berlin")).isoformat() == "2026-03-29T03:00:00+02:00"
    )


@pytest.mark.parametrize("line", ["30 2 * * *", "30 * * * *", "*/30 * * * *"])
def test_a_time_that_is_repeated_fires_once(line):
    crontab = Crontab.parse(line, "Europe/Berlin")
    day = seconds("2026-10-25 00:00", "Europe/Berlin")
    labels = [each.label for each in crontab.latest(100, after=day, until=day + 86_400)]
    assert labels.count("2026-10-25T02:30") == 1


@pytest.mark.parametrize(
    "line", ["", "0 22 * *", "0 22 * * * *", "0 25 * * *", "60 * * * *", "0 22 * * x", "0 0 30 2 *"]
)
def test_what_is_no_line_or_never_fires_is_refused(line):
    with pytest.raises(ValueError, match="0 22"):
        Crontab.parse(line, "UTC")


@pytest.mark.parametrize(("name", "line"), [("@daily", "0 0 * * *"), ("@Hourly", "0 * * * *"), ("@reboot", "fields")])
def test_a_crons_nickname_is_refused_with_the_line_that_means_the_same(name, line):
    with pytest.raises(ValueError, match=re.escape(line)):
        Crontab.parse(name, "UTC")


def test_a_line_that_fires_several_times_a_day_is_known_as_one():
    assert Crontab.parse("0 * * * *", "UTC").fires_several_times_a_day
    assert Crontab.parse("0,30 22 * * *", "UTC").fires_several_times_a_day
    assert not Crontab.parse("0 22 * * 1-5", "UTC").fires_several_times_a_day
