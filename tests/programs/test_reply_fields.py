"""Splitters of replies by field, against what DSPy's own adapters read in the whole reply."""

import json
import random
import time

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError

from dspyq.programs.reply_fields.chat import ChatFields
from dspyq.programs.reply_fields.json_object import JsonFields
from dspyq.programs.reply_fields.xml import XmlFields

FIELDS = ("reasoning", "answer")
SIGNATURE = dspy.Signature("question -> reasoning, answer")
PIECES = (
    "a", " ", "\n", "\r", "\r\n", "\u2028", "\x0b", "[", "[[", "[[ ## ", "]]", " ## ]]", "word ", "é", "😀", '"', "\\",
    "{", "}", ",", ":", "\t", "## ", "\n[[ ## x", " [[ ## answer ## ]]", "\n[[ ## answer ## ]]",
    "\n  [[ ## note ## ]] after ", "&", "<", ">", "\\n", "\\u00e9",
)  # fmt: skip
REPLIES = 2_500


def split(splitter, text, cuts=()):
    """The text that a splitter emits by field, for a reply that is cut at these places."""
    found = {}
    fields = splitter(FIELDS, lambda field, piece: found.setdefault(field, []).append(piece))
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        fields.feed(text[start:end])
    fields.end()
    return {field: "".join(pieces) for field, pieces in found.items()}


def cuts_of(chance, text):
    return sorted(chance.sample(range(len(text)), min(len(text), chance.randrange(1, 12))))


def values(chance):
    return {field: "".join(chance.choice(PIECES) for _ in range(chance.randrange(12))) for field in FIELDS}


def chat_reply(chance):
    sections = "".join(f"[[ ## {field} ## ]]\n{value}\n\n" for field, value in values(chance).items())
    return chance.choice(["", "Sure!\n"]) + sections + "[[ ## completed ## ]]"


def json_reply(chance):
    stated = {"n": 3, "list": ["a", {"answer": "no"}], **values(chance), "none": None}
    text = json.dumps(stated, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 2]))
    return chance.choice([text, f"```json\n{text}\n```"])


def xml_reply(chance):
    written = []
    for field, value in values(chance).items():
        escaped = "".join(char for char in value if char != "\x0b").replace("&", "&amp;").replace("<", "&lt;")
        written.append(f"<{field}>\n{escaped}\n</{field}>")
    return chance.choice(["", "Here:\n"]) + "\n\n".join(written)


@pytest.mark.parametrize(
    ("splitter", "adapter", "write"),
    [
        (ChatFields, dspy.ChatAdapter(), chat_reply),
        (JsonFields, dspy.JSONAdapter(), json_reply),
        (XmlFields, dspy.XMLAdapter(), xml_reply),
    ],
    ids=["chat", "json", "xml"],
)
def test_what_is_emitted_is_what_the_adapter_reads(splitter, adapter, write):
    chance = random.Random(17)  # noqa: S311 - the same replies in each run
    number_read = 0
    for _ in range(REPLIES):
        reply = write(chance)
        cuts = cuts_of(chance, reply)
        try:
            read = adapter.parse(SIGNATURE, reply)
        except AdapterParseError:
            continue
        number_read += 1
        found = split(splitter, reply, cuts)
        assert {field: found.get(field, "") for field in FIELDS} == read, (reply, cuts)
    assert number_read > REPLIES / 2


@pytest.mark.parametrize("splitter", [ChatFields, JsonFields, XmlFields])
def test_any_reply_in_any_pieces_is_split_alike(splitter):
    chance = random.Random(4)  # noqa: S311 - as above
    for _ in range(REPLIES):
        reply = "".join(chance.choice(PIECES) for _ in range(chance.randrange(30)))
        assert split(splitter, reply, cuts_of(chance, reply)) == split(splitter, reply)


def test_a_character_at_a_time_comes_at_once():
    found = []
    fields = ChatFields(FIELDS, lambda field, text: found.append((field, text)))
    for char in "[[ ## answer ## ]]\nHi you":
        fields.feed(char)
    assert found == [("answer", "H"), ("answer", "i"), ("answer", " y"), ("answer", "o"), ("answer", "u")]


@pytest.mark.parametrize(
    ("splitter", "long"),
    [
        (ChatFields, "[[ ## answer ## ]]\n{}"),
        (JsonFields, '{{"answer": "{}"}}'),
        (XmlFields, "<answer>{}</answer>"),
    ],
)
@pytest.mark.parametrize("unit", [" ", "a", "\n[", "word "])
def test_a_long_reply_in_small_pieces_takes_linear_time(splitter, long, unit):
    def seconds(length):
        reply = long.format((unit * length)[:length])
        fields, began_at = splitter(FIELDS, lambda *_: None), time.process_time()
        for char in reply:
            fields.feed(char)
        return time.process_time() - began_at

    short, longer = min(seconds(1_000) for _ in range(3)), min(seconds(32_000) for _ in range(2))
    assert longer < 250 * (short + 0.001)  # of a reply 32 times as long; quadratic time would be 1,024 times as long
