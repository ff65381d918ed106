"""The window of a batch, against a clock on the wall that is looked at each minute."""

import math
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspyq.core.window import Window
from tests.properties.profiles import examples
from tests.support.wall import DAY, ZONES, Wall, moments, seconds


def open_minutes(wall, spans):
    """The minutes in which a window of these spans is open, but for both ends of the two weeks."""
    opened = set()
    day = wall.first.date() + DAY
    while day < wall.last.date() - DAY:
        for start, end in spans:
            opens = wall.when(datetime.combine(day, start))[0]
            closes = wall.when(datetime.combine(day if end > start else day + DAY, end))[-1]
            opened.update(range(opens, closes, 60))
        day += DAY
    return opened


minutes = st.builds(time, st.integers(0, 23), st.integers(0, 59))
nights = st.tuples(minutes, minutes).filter(lambda span: span[0] != span[1])


@pytest.mark.property
@settings(max_examples=examples(15, 40))
@given(st.data())
def test_a_window_is_open_by_local_time(data):
    zone = data.draw(st.sampled_from(ZONES))
    spans = data.draw(st.lists(nights, min_size=1, max_size=2))
    now = data.draw(moments(zone))
    window = Window.parse(",".join(f"{start:%H:%M}-{end:%H:%M}" for start, end in spans), zone)
    opened = open_minutes(Wall(zone, now), spans)
    minute = now // 60 * 60
    assert window.is_open(now) == (minute in opened)

    def first(is_open):
        return next((s for s in range(minute, minute + 4 * 86_400, 60) if (s in opened) == is_open), None)

    assert window.seconds_until_open(now) == max(0, first(is_open=True) - now)
    closes_at = first(is_open=False)
    assert window.seconds_until_close(now) == (math.inf if closes_at is None else max(0, closes_at - now))


def test_a_night_spans_midnight():
    window = Window.parse("22:00-06:00", "UTC")
    assert [window.is_open(seconds(f"2026-11-24 {at}")) for at in ("21:59:59", "22:00", "23:30")] == [False, True, True]
    assert [window.is_open(seconds(f"2026-11-24 {at}")) for at in ("05:59:59", "06:00")] == [True, False]
    assert window.seconds_until_open(seconds("2026-11-24 21:00")) == 3600
    assert window.seconds_until_close(seconds("2026-11-24 21:00")) == 0
    assert window.seconds_until_close(seconds("2026-11-24 22:00")) == 8 * 3600


@pytest.mark.parametrize(("night", "hours"), [("2026-03-28", 7), ("2026-10-24", 9), ("2026-11-24", 8)])
def test_a_night_is_an_hour_shorter_or_longer_when_the_clocks_change(night, hours):
    window = Window.parse("22:00-06:00", "Europe/Berlin")
    assert window.seconds_until_close(seconds(f"{night} 22:00", "Europe/Berlin")) == hours * 3600


def test_a_start_that_is_skipped_is_the_next_minute_that_exists():
    window = Window.parse("02:30-05:00", "Europe/Berlin")
    before = seconds("2026-03-29 01:59", "Europe/Berlin")
    assert window.seconds_until_open(before) == 60
    assert datetime.fromtimestamp(before + 60, ZoneInfo("Europe/Berlin")).time() == time(3, 0)


def test_a_window_that_is_skipped_whole_does_not_open_that_night():
    window = Window.parse("02:10-02:40", "Europe/Berlin")
    assert window.seconds_until_open(seconds("2026-03-29 00:00", "Europe/Berlin")) > 20 * 3600


def test_a_window_is_open_from_the_first_of_its_repeated_start_to_the_last_of_its_repeated_end():
    window = Window.parse("02:00-02:30", "Europe/Berlin")
    first = datetime(2026, 10, 25, 2, 0, tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC).timestamp()
    assert not window.is_open(first - 1)
    assert window.seconds_until_close(first) == 90 * 60


def test_spans_that_follow_each_other_close_once_and_spans_without_a_gap_never():
    midday = seconds("2026-11-24 12:00")
    assert Window.parse("11:00-12:30,12:30-13:00", "UTC").seconds_until_close(midday) == 3600
    assert Window.parse("00:00-12:00,12:00-00:00", "UTC").seconds_until_close(midday) == math.inf


@pytest.mark.parametrize("text", ["", "22:00", "22:00-25:00", "22-6", "22:00-06:00,", "10:60-11:00", "a-b"])
def test_what_is_no_span_of_the_day_is_refused(text):
    with pytest.raises(ValueError, match="22:00-06:00"):
        Window.parse(text, "UTC")


def test_a_span_that_starts_and_ends_at_once_is_refused():
    with pytest.raises(ValueError, match="leave it out"):
        Window.parse("06:00-06:00", "UTC")


def test_an_unknown_timezone_is_refused():
    with pytest.raises(ValueError, match="IANA"):
        Window.parse("22:00-06:00", "Europe/Nowhere")


def test_a_window_shows_its_time_zone():
    assert str(Window.parse("22:00-06:00", "Europe/Berlin")) == "22:00-06:00 Europe/Berlin"
