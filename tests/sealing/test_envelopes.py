"""Envelopes open for whom they were sealed, and for nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dspyq.sealing.codec import SealingCodec
from dspyq.sealing.key_source import KeyFile, LiveKeys
from dspyq.sealing.keyring import OVERHEAD_BYTES, key_id_of, new_key_line, read_keyring
from dspyq.sealing.refusals import UnknownKey, UnreadableContent, refusals

LINES = [new_key_line(), new_key_line("index")]


class Lines:
    """Lines of keys as a source, which a test changes."""

    pause_seconds = 0.0

    def __init__(self, lines):
        self.lines = lines

    def read(self):
        return read_keyring(self.lines, "a test")

    def mark(self):
        return tuple(self.lines)


def codec(lines=LINES, **programs):
    return SealingCodec(LiveKeys(Lines(lines)), programs or {"qa": True})


@given(text=some.binary(max_size=5_000), kind=some.sampled_from(["job", "result"]), owner=some.text(max_size=50))
def test_what_was_sealed_opens_for_its_owner(text, kind, owner):
    sealed = codec().encode(kind, owner, text)
    assert len(sealed) == len(text) + OVERHEAD_BYTES
    assert codec().decode(kind, owner, sealed) == text
    assert text not in sealed or len(text) < 4


@given(text=some.binary(max_size=60), place=some.integers(min_value=0), bit=some.integers(0, 7))
def test_an_envelope_with_a_flipped_bit_is_refused(text, place, bit):
    sealed = bytearray(codec().encode("result", "mine", text))
    sealed[place % len(sealed)] ^= 1 << bit
    with pytest.raises(UnreadableContent):
        codec().decode("result", "mine", bytes(sealed))


@given(cut=some.integers(0, OVERHEAD_BYTES + 4))
def test_an_envelope_that_is_cut_is_refused(cut):
    sealed = codec().encode("result", "mine", b"text!")
    with pytest.raises(UnreadableContent):
        codec().decode("result", "mine", sealed[:cut])


@given(kind=some.sampled_from(["result", "reply"]), owner=some.text(max_size=9))
def test_an_envelope_that_was_moved_is_refused_and_counted(kind, owner):
    sealed = codec().encode("job", "mine", b"text")
    counted = refusals.counts()["altered"]
    with pytest.raises(UnreadableContent):
        codec().decode(kind, owner, sealed)
    assert refusals.counts()["altered"] == counted + 1


def test_two_envelopes_of_one_text_have_nothing_in_common_but_their_head():
    first, second = (codec().encode("result", "mine", bytes(500)) for _ in range(2))
    assert first[:11] == second[:11]
    assert sum(one == other for one, other in zip(first[11:], second[11:], strict=True)) < 30


def test_plain_text_is_refused_where_all_is_sealed_and_read_where_sealing_is_preferred():
    counted = refusals.counts()["plain_text"]
    with pytest.raises(UnreadableContent):
        codec(qa=True).decode("result", "mine", b"{}")
    assert refusals.counts()["plain_text"] == counted + 1
    assert codec(qa="prefer").decode("result", "mine", b"{}") == b"{}"
    assert codec(qa="prefer").encode("result", "mine", b"{}").startswith(b"dq1")


def test_messages_follow_their_program_and_all_else_the_strictest():
    both = codec(open=False, qa=True)
    assert both.encode("job", "mine", b"[]", program="open") == b"[]"
    assert both.decode("job", "mine", b"[]", program="open") == b"[]"
    for program in ("", "open", "qa"):  # its reader may not know it
        assert both.encode("result", "mine", b"{}", program=program).startswith(b"dq1")
    for program in ("qa", "unknown", ""):
        with pytest.raises(UnreadableContent):
            both.decode("job", "mine", b"[]", program=program)


def test_an_older_key_opens_and_the_first_one_seals():
    old = codec().encode("result", "mine", b"old")
    newer = codec([new_key_line(), *LINES])
    assert newer.decode("result", "mine", old) == b"old"
    assert key_id_of(newer.encode("result", "mine", b"new")) != key_id_of(old)


def test_a_key_that_is_added_is_found_without_a_restart():
    source = Lines(list(LINES))
    reader = SealingCodec(LiveKeys(source), {"qa": True})
    added = [new_key_line(), *LINES]
    sealed = codec(added).encode("result", "mine", b"text")
    with pytest.raises(UnknownKey):
        reader.decode("result", "mine", sealed)
    assert key_id_of(sealed).decode() in refusals.unknown_keys()
    source.lines = added
    assert reader.decode("result", "mine", sealed) == b"text"


def test_keys_that_can_no_longer_be_read_stay_as_they_were(caplog):
    source = Lines(list(LINES))
    keys = LiveKeys(source)
    source.lines = ["seal nonsense"]
    assert keys.find(b"k0000000") is None
    assert keys.ring == read_keyring(LINES, "before")
    assert "keys_not_read" in caplog.text
    assert LINES[0].split()[2] not in caplog.text


def test_invented_ids_do_not_fill_the_report():
    for number in range(50):
        refusals.note("unknown_key", kind="result", key_id=f"k{number:07}")
    refusals.note("unknown_key", kind="result", key_id="<script>")
    assert len(refusals.unknown_keys()) <= 8
    assert "invalid" in refusals.unknown_keys()
    assert "<script>" not in refusals.unknown_keys()


def test_a_file_of_keys_is_read_where_its_user_alone_can_read_it(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# ours\n\n" + "\n".join(LINES))
    path.chmod(0o600)
    assert KeyFile(path).read() == read_keyring(LINES, "lines")
