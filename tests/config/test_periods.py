"""The days and months that money is counted by."""

from datetime import UTC, datetime

import pytest

from dspyq.config.periods import Calendar


def seconds(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def hours(period):
    return (period.ends_at - period.starts_at) / 3600


@pytest.mark.parametrize(
    ("at_utc", "today", "its_hours"),
    [
        ("2026-03-28T22:59:59", "2026-03-28", 24),
        ("2026-03-28T23:00:00", "2026-03-29", 23),  # summer time begins
        ("2026-03-29T21:59:59", "2026-03-29", 23),
        ("2026-03-29T22:00:00", "2026-03-30", 24),
        ("2026-10-24T22:00:00", "2026-10-25", 25),  # summer time ends
        ("2026-10-25T22:59:59", "2026-10-25", 25),
        ("2026-10-25T23:00:00", "2026-10-26", 24),
    ],
)
def test_a_day_begins_at_midnight_of_its_timezone_summer_time_included(at_utc, today, its_hours):
    periods = Calendar("Europe/Berlin").at(seconds(at_utc))
    assert periods.today == today
    assert hours(periods.days[0]) == its_hours
    assert periods.days[0].starts_at <= seconds(at_utc) < periods.days[0].ends_at


def test_a_month_with_a_change_of_summer_time_has_an_hour_less_or_more():
    calendar = Calendar("Europe/Berlin")
    assert hours(calendar.at(seconds("2026-03-15T12:00:00")).months[0]) == 31 * 24 - 1
    assert hours(calendar.at(seconds("2026-10-15T12:00:00")).months[0]) == 31 * 24 + 1


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Africa/Cairo"])
@pytest.mark.parametrize("at_utc", ["2026-01-01T00:00:00", "2024-02-29T23:30:00", "2026-12-31T23:59:59"])
def test_the_periods_before_and_after_adjoin_the_current_one(timezone, at_utc):
    periods = Calendar(timezone).at(seconds(at_utc))
    for current, before, after in (periods.days, periods.months):
        assert before.ends_at == current.starts_at
        assert current.ends_at == after.starts_at
        assert current.starts_at <= seconds(at_utc) < current.ends_at
        assert before.label < current.label < after.label


def test_the_year_turns_between_december_and_january():
    labels = [month.label for month in Calendar("UTC").at(seconds("2026-12-31T12:00:00")).months]
    assert labels == ["2026-12", "2026-11", "2027-01"]


def test_it_computes_once_a_day_and_follows_the_clock_in_both_directions():
    time = seconds("2026-11-24T12:00:00")
    calendar = Calendar("UTC", clock=lambda: time)
    first = calendar.now()
    time += 3600
    assert calendar.now() is first
    time = seconds("2026-11-25T00:00:00")
    assert calendar.now().today == "2026-11-25"
    time -= 1
    assert calendar.now().today == "2026-11-24"
