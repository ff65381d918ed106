"""Requests in the form of OpenAI's chat completions, read as the inputs of a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from dspyq.config.chat import ConversationFields
from dspyq.serve.problems import Declined, ProblemKind

INVALID_REQUEST = ProblemKind(400, "invalid-request", "The request can never be served")
UNSUPPORTED = ProblemKind(400, "unsupported-parameter", "The parameter cannot be served")
UNFIT_MESSAGES = ProblemKind(422, "invalid-messages", "The program does not take such messages")

#: Parameters that the model's table decides; clients send them by habit.
_IGNORED = frozenset({
    "frequency_penalty", "logit_bias", "max_completion_tokens", "max_tokens", "metadata", "parallel_tool_calls",
    "presence_penalty", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "safety_identifier", "seed",
    "service_tier", "stop", "store", "temperature", "top_logprobs", "top_p", "verbosity",
})  # fmt: skip
#: Parameters that change what an answer is, each with the values that change nothing.
_INERT: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "prediction": (),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "web_search_options": (),
}
_READ = frozenset({"messages", "model", "stream", "stream_options", "user"})
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class ChatRequest(NamedTuple):
    """A chat request, read but not yet checked against its program.

    Attributes:
        model: The model, as the client named it.
        messages: The messages.
        streams: Whether the answer is to come as a stream.
        includes_usage: Whether the stream ends with the usage.
        user: The client's name of its user; None for none.
        ignored: Names of parameters that are not followed.
    """

    model: str
    messages: list[Any]
    streams: bool
    includes_usage: bool
    user: str | None
    ignored: tuple[str, ...]

    @property
    def program(self) -> str:
        """The program that the model names."""
        return self.model.partition(":")[0]

    @property
    def variant(self) -> str | None:
        """The variant that the model names; None for none."""
        return self.model.partition(":")[2] or None


class _ChatMessage(NamedTuple):
    role: str
    text: str


def read_chat_request(body: Any) -> ChatRequest:
    """Read a body.

    Raises:
        Declined: With 400, which names the parameter that cannot be served.
    """
    if not isinstance(body, dict):
        raise Declined(INVALID_REQUEST, "the body is to be a JSON object")
    stated = {name: value for name, value in body.items() if value is not None}
    for name, value in stated.items():
        if name in _INERT and not any(type(value) is type(inert) and value == inert for inert in _INERT[name]):
            raise Declined(UNSUPPORTED, f"{name} cannot be served: a program has its own form", parameter=name)
        if name not in _IGNORED and name not in _INERT and name not in _READ:
            raise Declined(UNSUPPORTED, f"there is no parameter {name[:64]!r}", parameter=name[:64])
    options = _typed(stated, "stream_options", dict, {})
    return ChatRequest(
        _typed(stated, "model", str),
        _typed(stated, "messages", list),
        _typed(stated, "stream", bool, default=False),
        _typed(options, "include_usage", bool, default=False),
        _typed(stated, "user", str, "") or None,
        tuple(sorted(stated.keys() & _IGNORED)),
    )


def _typed(stated: dict[str, Any], name: str, type_: type, default: Any = None) -> Any:
    value = stated.get(name)
    value = default if value is None else value
    if not isinstance(value, type_):
        is_missing = value is None
        raise Declined(INVALID_REQUEST, f"{name} is {'missing' if is_missing else 'of the wrong type'}", parameter=name)
    return value


def inputs_of(request: ChatRequest, fields: ConversationFields) -> dict[str, Any]:
    """Return the inputs that a conversation is for a program.

    Raises:
        Declined: With 400 for messages that cannot be read, with 422 for those that the program has no input for.
    """
    messages = [_read_message(index, message) for index, message in enumerate(request.messages)]
    system = "\n\n".join(message.text for message in messages if message.role == "system")
    turns = _merged([message for message in messages if message.role != "system"])
    if not turns or turns[-1].role != "user":
        raise Declined(UNFIT_MESSAGES, "the last message is to be the user's", parameter="messages")
    *before, question = turns
    inputs: dict[str, Any] = {fields.question: question.text}
    if system and not fields.system:
        raise Declined(
            UNFIT_MESSAGES, "the program has no input for messages of the system: chat.system", parameter="messages"
        )
    if fields.system:
        inputs[fields.system] = system
    if before and not fields.history:
        raise Declined(
            UNFIT_MESSAGES, "the program takes one question, without the messages before: chat.history",
            parameter="messages",
        )  # fmt: skip
    if fields.history:
        inputs[fields.history] = _dspy_history(before, fields) if fields.has_dspy_history else _plain_history(before)
    return inputs


def _read_message(index: int, message: Any) -> _ChatMessage:
    place = f"messages[{index}]"
    if not isinstance(message, dict):
        raise Declined(INVALID_REQUEST, f"{place} is to be an object", parameter=place)
    role = _ROLES.get(str(message.get("role")))
    if role is None:
        raise Declined(UNSUPPORTED, f"{place}: only messages of system, user and assistant", parameter=f"{place}.role")
    if message.get("tool_calls") or message.get("function_call") or message.get("audio"):
        raise Declined(UNSUPPORTED, f"{place}: only messages of text can be served", parameter=place)
    content = message.get("content")
    if isinstance(content, str):
        return _ChatMessage(role, content)
    if not isinstance(content, list):
        raise Declined(INVALID_REQUEST, f"{place}.content is to be a text", parameter=f"{place}.content")
    return _ChatMessage(role, "".join(_part(f"{place}.content[{at}]", part) for at, part in enumerate(content)))


def _part(place: str, part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text" or not isinstance(part.get("text"), str):
        raise Declined(UNSUPPORTED, f"{place}: only parts of text can be served", parameter=f"{place}.type")
    text: str = part["text"]
    return text


def _merged(turns: Sequence[_ChatMessage]) -> list[_ChatMessage]:
    """Return messages in turns: those of one role that follow each other are one."""
    merged: list[_ChatMessage] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            merged[-1] = _ChatMessage(turn.role, f"{merged[-1].text}\n\n{turn.text}")
        else:
            merged.append(turn)
    return merged


def _plain_history(turns: Sequence[_ChatMessage]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def _dspy_history(turns: Sequence[_ChatMessage], fields: ConversationFields) -> dict[str, Any]:
    """Return turns as DSPy's history has them: each question with its answer, by the names of the program's fields."""
    rounds: list[dict[str, str]] = []
    for turn in turns:
        if turn.role == "user" or not rounds:
            rounds.append({})
        rounds[-1][fields.question if turn.role == "user" else fields.answer] = turn.text
    return {"messages": rounds}
