"""Tables that commands print, also where a terminal is narrow."""

import pytest
from rich.console import Console

from dspyq.console import output


@pytest.fixture
def narrow(monkeypatch):
    """A terminal of 40 characters; returns what it shows."""
    console = Console(width=40)
    monkeypatch.setattr(output, "console", console)
    return console


def test_a_column_without_any_text_is_left_out(narrow):
    with narrow.capture() as shown:
        output.print_table("Batches", ["id", "name", "rows"], [["one", "", "1"], ["two", "", "2"]])
    assert shown.get().splitlines()[1].split() == ["id", "rows"]
    with narrow.capture() as shown:
        output.print_table("Batches", ["id", "name", "rows"], [["one", "", "1"], ["two", "nightly", "2"]])
    assert shown.get().splitlines()[-1].split() == ["two", "nightly", "2"]


def test_a_table_without_rows_shows_what_it_would_hold(narrow):
    with narrow.capture() as shown:
        output.print_table("Batches", ["id", "name"], [])
    assert shown.get().split() == ["Batches", "id", "name"]


def test_a_narrow_terminal_breaks_long_texts_and_leaves_short_ones_whole(narrow):
    with narrow.capture() as shown:
        output.print_table("Batches", ["state", "of", "rows"], [["not running", "a long text " * 4, "1,000,000"]])
    lines = shown.get()
    assert "not running" in lines
    assert "1,000,000" in lines
    assert all(len(line) <= 40 for line in lines.splitlines())
