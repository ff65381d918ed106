"""Keys come from one place; a fault of it is one line that shows no key."""

from __future__ import annotations

import sys

import pytest

from dspyq.errors import ConfigurationError
from dspyq.sealing.key_source import KeyCommand, KeyFile, KeyVariable, LiveKeys
from dspyq.sealing.keyring import new_key_line, read_keyring
from tests.support.processes import wait_until

LINES = [new_key_line(), new_key_line(), new_key_line("index")]
KEYS = "\n".join(LINES)


def refused(source):
    with pytest.raises(ConfigurationError) as error:
        source.read()
    text = str(error.value)
    assert "\n" not in text
    assert not [line for line in LINES if line.split()[2] in text]
    return text


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused(tmp_path, mode):
    path = tmp_path / "keys"
    path.write_text(KEYS)
    path.chmod(mode)
    assert f"mode {mode:04o}" in refused(KeyFile(path))
    assert "chmod 600" in refused(KeyFile(path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "No such file" in refused(KeyFile(tmp_path / "keys"))


def test_a_changed_file_counts_without_a_restart(tmp_path):
    path = tmp_path / "keys"
    path.write_text(KEYS)
    path.chmod(0o600)
    keys = LiveKeys(KeyFile(path))
    new = new_key_line()
    path.write_text(f"{new}\n{KEYS}")
    wait_until(lambda: keys.ring.sealing_id == new.split()[1], 30, "the new key to seal")


def test_a_variable_holds_the_lines(monkeypatch):
    monkeypatch.setenv("SEAL_KEYS", KEYS)
    assert KeyVariable("SEAL_KEYS").read() == read_keyring(LINES, "lines")
    monkeypatch.delenv("SEAL_KEYS")
    assert "SEAL_KEYS is not set" in refused(KeyVariable("SEAL_KEYS"))


def test_a_command_prints_the_lines(tmp_path):
    script = tmp_path / "kms.py"
    script.write_text(f"print({KEYS!r})")
    assert KeyCommand(f"{sys.executable} '{script}'").read() == read_keyring(LINES, "lines")
    script.write_text(f"import sys; print({KEYS!r}); sys.exit({KEYS!r})")
    assert "ended with code 1" in refused(KeyCommand(f"{sys.executable} '{script}'"))
    assert "No such file" in refused(KeyCommand("/nowhere/kms"))


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([LINES[0]], "no line `index ID KEY`"),
        ([LINES[2]], "no line `seal ID KEY`"),
        ([LINES[0], LINES[0], LINES[2]], "line 2: the id"),
        ([LINES[0], LINES[2] + "00"], "line 2: not `seal ID KEY`"),
        (["", "# a comment", "key " + LINES[0]], "line 3: not"),
    ],
)
def test_lines_that_are_no_keys_are_named_by_their_number(lines, text):
    with pytest.raises(ConfigurationError, match=text):
        read_keyring(lines, "keys")


def test_a_keyring_shows_no_key():
    shown = repr(read_keyring(LINES, "lines"))
    assert not [line for line in LINES if line.split()[2] in shown or bytes.fromhex(line.split()[2]).hex() in shown]
