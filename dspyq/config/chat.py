"""Programs that chat: which of their fields hold a conversation's question, history, instructions and answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from dspyq.config.forms import form
from dspyq.config.models import Table
from dspyq.config.signature import Field as SignatureField
from dspyq.config.signature import Signature

FieldName = Annotated[str, Field(pattern=form(r"^[A-Za-z_]\w*$", "name a field of the signature"))]
_REASONING = "reasoning"
_HISTORY_NAMES = ("history", "messages")
_DSPY_HISTORY = re.compile(r"dspy\.History( \| None)?")
_MESSAGES = re.compile(r"list\[dict(\[str, (str|Any)\])?\]( \| None)?")


class Chat(Table):
    """The fields of a program as a conversation, ``[programs.<name>.chat]``; those left out are found by their types.

    Attributes:
        question: The input with the user's last message.
        history: The input with the messages before that: a ``dspy.History``, or a ``list[dict]`` of messages.
        system: The input with the messages of the system; a program without one refuses them.
        answer: The output that is the assistant's message.
    """

    question: FieldName | None = None
    history: FieldName | None = None
    system: FieldName | None = None
    answer: FieldName | None = None


class ConversationFields(NamedTuple):
    """The fields of a program that chats.

    Attributes:
        question: The input with the user's last message.
        answer: The output that is the assistant's message.
        history: The input with the messages before the last; empty for none.
        has_dspy_history: Whether that is a ``dspy.History``, not a list of messages.
        system: The input with the messages of the system; empty for none.
    """

    question: str
    answer: str
    history: str = ""
    has_dspy_history: bool = False
    system: str = ""


def find_conversation_fields(signature: Signature, stated: Chat | None) -> ConversationFields:
    """Return the fields of a conversation.

    Args:
        signature: The program's.
        stated: What the configuration states; None for nothing.

    Raises:
        ValueError: If the program cannot chat so; the text states the reason.
    """
    stated = stated or Chat()
    inputs, outputs = ({field.name: field for field in side} for side in (signature.inputs, signature.outputs))
    history = _input_of(inputs, "history", stated.history) or next(
        (name for name in _HISTORY_NAMES if name in inputs and _is_history(inputs[name])), ""
    )
    if history and not _is_history(inputs[history]):
        raise ValueError("chat.history: the input is to be of the type dspy.History or list[dict]")
    system = _input_of(inputs, "system", stated.system)
    needed = [field for field in inputs.values() if not field.may_be_left_out and field.name not in {history, system}]
    question = _input_of(inputs, "question", stated.question) or _only_text(needed, "question", "input")
    for name in (question, system):
        if name and inputs[name].type_text not in {"str", "str | None"}:
            raise ValueError(f"chat: the input {name} is to be of the type str")
    if others := [field.name for field in needed if field.name != question]:
        raise ValueError(f"chat: a conversation has no value for {', '.join(others)}, which must be given")
    answer = stated.answer or _only_text(
        [field for field in outputs.values() if field.name != _REASONING], "answer", "output"
    )
    if answer not in outputs or outputs[answer].type_text != "str":
        raise ValueError(f"chat.answer: there is no output {answer} of the type str")
    is_dspy = bool(history) and _DSPY_HISTORY.fullmatch(inputs[history].type_text) is not None
    return ConversationFields(question, answer, history, is_dspy, system)


def _input_of(inputs: dict[str, SignatureField], key: str, name: str | None) -> str:
    if name is not None and name not in inputs:
        raise ValueError(f"chat.{key}: there is no input {name}; there is {', '.join(inputs)}")
    return name or ""


def _only_text(fields: Sequence[SignatureField], key: str, side: str) -> str:
    if len(fields) != 1 or fields[0].type_text != "str":
        raise ValueError(f"chat.{key}: state it, as there is more than one {side}, or none of the type str")
    return fields[0].name


def _is_history(field: SignatureField) -> bool:
    return any(form.fullmatch(field.type_text) for form in (_DSPY_HISTORY, _MESSAGES))
