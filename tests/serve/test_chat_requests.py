"""Conversations as inputs, and the fields that programs chat with."""

from __future__ import annotations

import pytest

from dspyq.config.chat import Chat, ConversationFields, find_conversation_fields
from dspyq.config.signature import parse_signature
from dspyq.serve.chat.requests import inputs_of, read_chat_request
from dspyq.serve.problems import Declined

TURNS = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
    {"role": "user", "content": [{"type": "text", "text": "d"}, {"type": "text", "text": "e"}]},
]


def inputs(messages, fields):
    return inputs_of(read_chat_request({"model": "x", "messages": messages}), fields)


@pytest.mark.parametrize(
    ("signature", "stated", "fields"),
    [
        ("question -> answer", None, ConversationFields("question", "answer")),
        ("question -> reasoning, answer", None, ConversationFields("question", "answer")),
        ("text, hint: str = 'none' -> reply", None, ConversationFields("text", "reply")),
        ("q, history: dspy.History -> a", None, ConversationFields("q", "a", "history", has_dspy_history=True)),
        ("q, messages: list[dict] -> a", None, ConversationFields("q", "a", "messages")),
        ("q, rules -> a, b", Chat(system="rules", answer="b"), ConversationFields("q", "b", system="rules")),
    ],
)
def test_the_fields_of_a_conversation_are_found_by_their_types(signature, stated, fields):
    assert find_conversation_fields(parse_signature(signature), stated) == fields


@pytest.mark.parametrize(
    ("signature", "stated"),
    [
        ("question, context -> answer", None),
        ("question: int -> answer", None),
        ("question -> answer, other", None),
        ("question -> answer: int", None),
        ("question -> answer", Chat(question="other")),
        ("question, past -> answer", Chat(history="past")),
        ("question -> answer", Chat(answer="other")),
    ],
)
def test_a_program_with_other_fields_does_not_chat(signature, stated):
    with pytest.raises(ValueError, match="chat"):
        find_conversation_fields(parse_signature(signature), stated)


def test_messages_before_the_last_are_the_history():
    plain = inputs(TURNS, ConversationFields("q", "a", "history"))
    assert plain == {
        "q": "c\n\nde",
        "history": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    }
    of_dspy = inputs(TURNS, ConversationFields("q", "a", "history", has_dspy_history=True))
    assert of_dspy["history"] == {"messages": [{"q": "a", "a": "b"}]}


def test_messages_of_the_system_are_one_input():
    messages = [{"role": "developer", "content": "x"}, {"role": "system", "content": "y"}, *TURNS[:1]]
    assert inputs(messages, ConversationFields("q", "a", system="rules")) == {"q": "a", "rules": "x\n\ny"}


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([], 422),
        (TURNS[:2], 422),
        (TURNS, 422),
        ([{"role": "tool", "content": "x"}], 400),
        (["x"], 400),
        ([{"role": "user", "content": None}], 400),
    ],
)
def test_messages_that_a_program_cannot_take_are_refused(messages, status):
    with pytest.raises(Declined) as refused:
        inputs(messages, ConversationFields("q", "a"))
    assert refused.value.problem.status == status


def test_values_that_change_nothing_are_no_reason_to_refuse():
    body = {"model": "x", "messages": [], "n": 1, "tools": [], "tool_choice": "auto", "stream": None, "stop": "x"}
    assert read_chat_request(body).ignored == ("stop",)
