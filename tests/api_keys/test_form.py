"""The form of keys, and their removal from texts."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspyq.api_keys.form import id_in, make_key, read_key_id
from dspyq.config.secrets import scrub

LETTERS = string.ascii_letters + string.digits


def test_a_key_has_an_id_of_12_a_secret_of_43_and_a_checksum_of_6_characters():
    made = make_key()
    prefix, key_id, rest = made.text.split("_")
    assert (prefix, key_id, len(key_id), len(rest)) == ("dspyq", made.id, 12, 49)
    assert read_key_id(made.text) == made.id
    assert make_key().text != made.text


@given(st.integers(0, 67), st.sampled_from(LETTERS))
def test_a_key_with_one_character_changed_is_no_key(place, letter):
    text = make_key().text
    changed = text[:place] + letter + text[place + 1 :]
    assert (read_key_id(changed) is None) == (changed != text)


@given(st.text(max_size=80))
def test_any_other_text_is_no_key(text):
    assert read_key_id(text) is None


def test_a_key_that_is_cut_short_or_in_another_case_is_no_key():
    text = make_key().text
    for changed in (text[:-1], text[1:], text.lower(), text.upper(), f"{text} ", f"{text}\n", text.replace("_", "-")):
        assert read_key_id(changed) is None


def test_an_operator_may_state_an_id_or_a_whole_key():
    made = make_key()
    for text in (made.id, made.text, made.text[:30], f"dspyq_{made.id}", f" {made.id}\n"):
        assert id_in(text) == made.id
    for text in ("", "short", "no-such-name", "x" * 13):
        assert id_in(text) is None


@pytest.mark.parametrize("text", ["{key}", "Bearer {key}", "key={key} refused", '"{key}"', "at {cut} the log ends"])
def test_a_key_is_removed_from_texts(text):
    made = make_key()
    shown = scrub(text.format(key=made.text, cut=made.text[:30]))
    assert made.text[20:30] not in shown
    assert "[secret]" in shown
