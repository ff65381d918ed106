"""Requests in the form of OpenAI's batch API, as far as a program can serve them.

One fits where it is a ``POST`` to ``/v1/chat/completions`` with one user message, and the program takes one input, a
text: that message's. A system message must be the program's instructions word for word: the program writes its own
prompts, and would drop any other. Model and sampling are the variant's; those in the body are ignored.
"""

from __future__ import annotations

from typing import Any

from dspyq.config.programs import Program

_URL = "/v1/chat/completions"
#: Fields that a body may have besides messages: the variant decides them, and they do not change the kind of answer.
_VARIANTS_OWN = frozenset(
    {
        "messages",
        "model",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "seed",
        "user",
        "metadata",
        "store",
    }
)


class Misfit(Exception):
    """A row that does not fit the program's inputs.

    Attributes:
        type: The type of the row's fault.
    """

    def __init__(self, kind: str, message: str) -> None:
        self.type = kind
        super().__init__(message)


def is_openai_form(value: dict[str, Any]) -> bool:
    """Return True if an object looks like a request of that API."""
    return "body" in value and "url" in value


def read_openai_form(value: dict[str, Any], program: Program) -> dict[str, Any]:
    """Return the inputs that a request states.

    Raises:
        Misfit: If the program cannot serve it; the message gives the reason.
    """
    fields = program.signature.inputs
    if len(fields) != 1 or fields[0].type_text != "str":
        raise _misfit(f"{program.name} takes more than one text, so a chat request does not state its inputs")
    body = value["body"]
    if value.get("method") != "POST" or value["url"] != _URL or type(body) is not dict:
        raise _misfit(f"only a POST to {_URL} with a body can be served")
    if not body.keys() <= _VARIANTS_OWN:
        raise _misfit("the body contains more than messages and sampling (tools, response_format, n, stream, …)")
    messages = body.get("messages")
    if type(messages) is not list or not all(type(message) is dict for message in messages):
        raise _misfit("body.messages is not a list of messages")
    if messages and messages[0].get("role") in ("system", "developer"):  # of any type: no set
        if _text(messages[0]) != (program.instructions or ""):
            raise _misfit(f"its system message is not the instructions of {program.name}, which would take its place")
        messages = messages[1:]
    if len(messages) != 1 or messages[0].get("role") != "user":
        raise _misfit("only one user message, and no other, can be served")
    text = _text(messages[0])
    if text is None:
        raise _misfit("its message holds parts that are not text")
    return {fields[0].name: text}


def _text(message: dict[str, Any]) -> str | None:
    content = message.get("content")
    if type(content) is list and all(type(part) is dict and part.get("type") == "text" for part in content):
        parts = [part.get("text") for part in content]
        content = "".join(parts) if all(type(part) is str for part in parts) else None
    return content if type(content) is str else None


def _misfit(message: str) -> Misfit:
    return Misfit("UnsupportedRequest", message)
