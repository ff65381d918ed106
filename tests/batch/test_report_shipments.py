"""Shipments in the HTML report of a batch: what waited, what was at the provider, and how long all took."""

from pathlib import Path

from dspyq.batch.reports.summary import ShipmentSpan, Summary, Timeline, TimelineBar
from dspyq.cli.batch.report.page import to_html
from dspyq.cli.report.texts import short_duration
from tests.support.html_page import Page

BEGAN = 1_795_730_400.0  # 2026-11-26 22:00 UTC


def page_of(*, shipments, hours=9):
    bars = (TimelineBar(int(BEGAN + hours * 3600), 10, 0, 0),)
    summary = Summary(Path("out.jsonl"), lines=10, timeline=Timeline(600, bars), shipments=shipments)
    return Page(to_html(summary))


def span(number=0, *, unanswered=0, ended_at=BEGAN + 30_000):
    name = f"dspyq-{number:08x}0123456789ab"
    return ShipmentSpan(name, "fast", 1200, BEGAN, BEGAN + 90, ended_at, "ended", 1100, 3, unanswered)


def test_a_night_took_as_long_as_it_did_from_its_first_shipment_on_and_its_times_have_dates():
    text = page_of(shipments=[span()]).text
    assert "9 h 10 min" in text
    assert any("2026-11-26 22:00 to 2026-11-27 07:10 UTC" in each for each in text)
    assert "2026-11-26 22:00" in text
    assert "2026-11-27 06:20" in text


def test_each_shipment_is_a_bar_of_its_time_and_a_line_of_a_table():
    page = page_of(shipments=[span(), span(1, unanswered=97), span(2, ended_at=0)])
    assert page.text.count("1,200 calls") == 3
    bars = [attributes["class"] for name, attributes in page.elements if name == "rect"]
    assert [kind for kind in bars if kind == "failed"] == ["failed"]
    for cell in ("dspyq-00000001", "90.0 s", short_duration(29_910), "97", "–"):
        assert cell in page.text


def test_only_the_last_of_many_shipments_are_drawn_and_the_title_states_it():
    page = page_of(shipments=[span(number) for number in range(61)])
    assert "The last 60 shipments" in page.text
    assert "dspyq-00000000" not in page.text


def test_marks_of_the_shortest_durations_differ():
    assert [short_duration(seconds) for seconds in (0, 0.0006, 0.0014, 0.012)] == ["0 ms", "0.6 ms", "1.4 ms", "12 ms"]
