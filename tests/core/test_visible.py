"""Characters that a terminal would obey are shown as text."""

from __future__ import annotations

import json
import sys
import unicodedata

from dspyq.core.visible import escape_in_json, escape_non_ascii, visible, visible_but_for_colours, visible_line

EVERY = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF)


def test_no_control_character_is_left_but_lines_and_tabs() -> None:
    left = {character for character in visible(EVERY) if unicodedata.category(character) == "Cc"}
    assert left == {"\n", "\t"}
    assert not {character for character in visible_line(EVERY) if unicodedata.category(character) == "Cc"}


def test_they_are_shown_as_python_writes_them() -> None:
    assert visible("a\x1b]52;c;x\x07\x9b1m\r\n\t\u202eb") == "a\\x1b]52;c;x\\x07\\x9b1m\\r\n\t\\u202eb"
    assert visible_line("a\nb\tc\u2028") == "a\\nb\\tc\\u2028"


def test_all_other_text_stays() -> None:
    assert visible("é ✓ 漢字 👍🏽 [red]") == "é ✓ 漢字 👍🏽 [red]"


def test_colours_of_other_programs_stay_and_no_other_control_sequence() -> None:
    assert visible_but_for_colours("\x1b[1;31mred\x1b[0m\x1b[2J") == "\x1b[1;31mred\x1b[0m\\x1b[2J"


def test_escaped_json_decodes_to_the_same_value() -> None:
    document = json.dumps({"text": EVERY}, ensure_ascii=False)
    assert json.loads(escape_in_json(document)) == json.loads(escape_non_ascii(document)) == {"text": EVERY}
    assert escape_non_ascii(document).isascii()
    assert not {character for character in escape_in_json(document) if unicodedata.category(character) == "Cc"}
