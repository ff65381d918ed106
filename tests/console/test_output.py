"""Tables that commands print, also where a terminal is narrow."""

import io
import json
import os
import subprocess
import sys

import pytest
from rich.padding import Padding
from rich.text import Text

from dspyq.console import output
from dspyq.errors import DspyqError


@pytest.fixture
def narrow(monkeypatch):
    """A terminal of 40 characters; returns what it shows."""
    console = output.PlainConsole()
    console.width = 40
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


def test_a_terminal_that_is_too_narrow_for_short_texts_cuts_none_of_them(narrow):
    row = ["0123456789ab", "my-name", "not running", "10,000,000", "$1234.567890", "/a/path/that/is/long.jsonl"]
    with narrow.capture() as shown:
        output.print_table("Batches", ["id", "name", "state", "rows", "spent", "output"], [row])
    _, head, *lines = shown.get().splitlines()
    assert lines[0].split()[:6] == [*row[:2], "not", "running", *row[3:5]]
    assert "".join(line[head.index("output") :].strip() for line in lines) == row[-1]


HOSTILE = "x[/red]y [bold]z :smile: \x1b]52;c;aGk=\x07 \x9b31m \x1b[2J \u202e"


def test_a_table_shows_data_as_it_is(narrow):
    with narrow.capture() as shown:
        output.print_table(HOSTILE, [HOSTILE, "b"], [[HOSTILE, "two\nlines"]])
    text = "".join(line.strip() for line in shown.get().splitlines())
    assert not set(text) & {"\x1b", "\x9b", "\x07", "\u202e"}
    assert "[/red]" in text
    assert ":smile:" in text
    assert "two\\nlines" in text


def test_whatever_a_console_prints_shows_what_a_terminal_would_obey():
    shown = io.StringIO()
    console = output.PlainConsole(highlight=False)
    console.file, console.width = shown, 200
    console.print(HOSTILE)
    console.print(Text(HOSTILE, style="bold"), Text(HOSTILE))
    console.print(Padding(HOSTILE, 1))
    assert not set(shown.getvalue()) & {"\x1b", "\x9b", "\x07", "\u202e"}
    assert shown.getvalue().count("x[/red]y [bold]z :smile: \\x1b]52;c;aGk=") == 4


def test_an_error_is_one_line_without_a_secret(capsys):
    output.print_faults(DspyqError("no\x1b[2J\nredis://user:pass@host"))
    assert capsys.readouterr().err == "dspyq: no\\x1b[2J\\nredis://[secret]@host\n"


def run(code, encoding, **options):
    """Run code of a command in a process of its own."""
    imports = "from dspyq.console.output import *; from dspyq.console.output import console"
    prepared = f"{imports}; prepare_streams(); {code}"
    env = {"PYTHONIOENCODING": encoding, "PATH": ""}
    return subprocess.run([sys.executable, "-c", prepared], env=env, stderr=subprocess.PIPE, check=False, **options)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp437"])
def test_a_standard_output_of_any_encoding_takes_every_text(encoding):
    code = "text = 'é ✓ 👍 \\x9b'; print_json({'a': text}); console.print(text); print_text(text); print_table(text, [text], [[text]]); print_error(text)"  # noqa: E501 - one line for -c
    done = run(code, encoding, stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.decode(encoding).splitlines()
    assert json.loads(first) == {"a": "é ✓ 👍 \x9b"}
    assert len(others) == 5
    assert all("\\x9b" in line for line in others)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_reader_that_has_gone_ends_no_command(encoding):
    reading, writing = os.pipe()
    os.close(reading)
    code = "print_json('x' * 100_000); console.print('y'); print_text('z'); print_error('went on')"
    done = run(code, encoding, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"dspyq: went on\n")
