"""Default replies of the endpoint: the fields of a DSPy prompt, derived from its inputs.

Every text output is ``echo:`` and the value of the last input field that has one, so that a test sees whose answer it
got. Other types get a valid value that depends on that same input. Reads the prompts of DSPy's ChatAdapter,
JSONAdapter and XMLAdapter; any other prompt is answered with ``echo:`` and its last message.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

#: A longer input is echoed as its hash: an answer of megabytes would slow what a test measures.
MAX_ECHO_CHARACTERS = 10_000

_CHAT_REQUEST = "Respond with the corresponding output fields, starting with the field "
_JSON_REQUEST = "Respond with a JSON object in the following order of fields: "
_XML_REQUEST = "Respond with the corresponding output fields wrapped in XML tags "
_XML_STRUCTURE = " Use this nested XML structure: "
_JSON_FIELDS = "Outputs will be a JSON object with the following fields.\n\n"
_NOTE = re.compile(r"^\{(\w+)\}(?: +# note: the value you produce (.*))?$", re.MULTILINE)
_INPUT_LIST = re.compile(r"Your input fields are:\n(.*?)\nYour output fields are:", re.DOTALL)
_LISTED_NAME = re.compile(r"^\d+\. `(\w+)`", re.MULTILINE)
_CHOICES = re.compile(r"one of: (.*)$")
_SCHEMA = "must adhere to the JSON schema: "


@dataclass(frozen=True)
class Prompt:
    """A prompt as DSPy wrote it.

    Attributes:
        form: Which adapter's notation the reply must have: chat, json, xml or text.
        inputs: The values of the input fields, as written.
        outputs: The names of the output fields asked for.
        notes: What the prompt says about each field's type.
        structures: XML only: the nested elements asked for, by field.
    """

    form: str
    inputs: dict[str, str]
    outputs: list[str]
    notes: dict[str, str]
    structures: dict[str, str]

    @property
    def subject(self) -> str:
        """The value that identifies the request: the last input's that is not empty, or its hash where it is long."""
        value = next((value for value in reversed(self.inputs.values()) if value), "")
        return value if len(value) <= MAX_ECHO_CHARACTERS else "sha256:" + _digest(value)[:16]


def read_prompt(messages: list[dict[str, Any]]) -> Prompt:
    """Read the fields of a chat request's messages."""
    system = "\n".join(text_of(message) for message in messages if message.get("role") in {"system", "developer"})
    last = text_of(messages[-1]) if messages else ""
    for form, request in (("chat", _CHAT_REQUEST), ("json", _JSON_REQUEST), ("xml", _XML_REQUEST)):
        position = last.rfind(request)
        if position >= 0:
            names, notes = _read_system(system)
            outputs, structures = _read_request(form, last[position + len(request) :])
            return Prompt(form, _read_inputs(form, names, last[:position]), outputs, notes, structures)
    return Prompt("text", {"message": last}, [], {}, {})


def text_of(message: dict[str, Any]) -> str:
    """Return a message's text, also where its content is a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def write_reply(prompt: Prompt, outputs: dict[str, Any] | None = None) -> str:
    """Return the reply to a prompt in the notation it asks for.

    Args:
        prompt: What was asked.
        outputs: Values to give instead of the derived ones, by field.
    """
    if prompt.form == "text":
        return f"echo:{prompt.subject}"
    values = {name: _value(prompt, name) for name in prompt.outputs} | (outputs or {})
    if prompt.form == "json":
        return json.dumps(values, ensure_ascii=False)
    if prompt.form == "xml":
        return "\n\n".join(_xml_element(prompt, name, value, outputs) for name, value in values.items())
    sections = [f"[[ ## {name} ## ]]\n{_text(value)}" for name, value in values.items()]
    return "\n\n".join([*sections, "[[ ## completed ## ]]\n"])


def _digest(text: str) -> str:
    # Prompts may hold half a surrogate pair, which strict UTF-8 refuses.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@functools.lru_cache(maxsize=64)
def _read_system(system: str) -> tuple[list[str], dict[str, str]]:
    """The names of the inputs, and the notes on types; one program's calls share the text, so it is read once."""
    listed = _INPUT_LIST.search(system)
    names = _LISTED_NAME.findall(listed.group(1)) if listed else []
    text = system
    start = system.find(_JSON_FIELDS)
    if start >= 0:
        try:
            fields, _ = json.JSONDecoder().raw_decode(system, start + len(_JSON_FIELDS))
        except ValueError:
            fields = {}
        text = "\n".join(str(value) for value in fields.values())
    return names, dict(_NOTE.findall(text))


def _read_request(form: str, request: str) -> tuple[list[str], dict[str, str]]:
    """The outputs asked for in the last sentence of a prompt, and the XML structures it shows."""
    if form == "chat":
        return [name for name in re.findall(r"`\[\[ ## (\w+) ## \]\]`", request) if name != "completed"], {}
    if form == "json":
        return re.findall(r"(?:^|, then )`(\w+)`", request), {}
    names, _, structures = request.partition(_XML_STRUCTURE)
    root = ElementTree.fromstring(f"<all>{structures}</all>")  # noqa: S314 - DSPy wrote it, for a test
    nested = {child.tag: ElementTree.tostring(child, encoding="unicode").strip() for child in root}
    return re.findall(r"`<(\w+)>`", names), nested


def _read_inputs(form: str, names: list[str], text: str) -> dict[str, str]:
    """The inputs' values. Each header is looked for after the one before, so a value may quote an earlier one."""
    header = "<{}>\n" if form == "xml" else "[[ ## {} ## ]]\n"
    found: list[tuple[str, int, int]] = []
    position = 0
    for name in names:
        mark = header.format(name)
        start = text.find(mark, position)
        if start >= 0:
            position = start + len(mark)
            found.append((name, start, position))
    ends = [start for _, start, _ in found[1:]] + [len(text)]
    values = {name: text[begin:end].strip() for (name, _, begin), end in zip(found, ends, strict=True)}
    if form == "xml":
        return {name: value.removesuffix(f"</{name}>").strip() for name, value in values.items()}
    return values


def _value(prompt: Prompt, name: str) -> Any:
    note = prompt.notes.get(name, "")
    number = int(_digest(prompt.subject)[:6], 16)
    if not note:
        return f"echo:{prompt.subject}"
    if note.startswith(_SCHEMA):
        return _from_schema(json.loads(note.removeprefix(_SCHEMA)), prompt.subject, number, {})
    if choices := _CHOICES.search(note):
        options = choices.group(1).split("; ")
        # A ReAct program ends at once, unless a test scripts which tool it takes.
        return "finish" if "finish" in options else options[number % len(options)]
    if "True or False" in note:
        return number % 2 == 0
    return number / 8 if "float" in note else number


def _from_schema(schema: dict[str, Any], subject: str, number: int, definitions: dict[str, Any]) -> Any:  # noqa: C901, PLR0911 - one branch per JSON type
    definitions = schema.get("$defs", definitions)
    if reference := schema.get("$ref"):
        return _from_schema(definitions[reference.rsplit("/", 1)[-1]], subject, number, definitions)
    if choices := schema.get("enum"):
        return choices[number % len(choices)]
    if "const" in schema:
        return schema["const"]
    if options := schema.get("anyOf"):
        return _from_schema(options[0], subject, number, definitions)
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: _from_schema(part, subject, number, definitions) for name, part in properties.items()}
        case "array":
            return [_from_schema(schema.get("items", {}), subject, number, definitions)]
        case "integer":
            return number
        case "number":
            return number / 8
        case "boolean":
            return number % 2 == 0
        case "null":
            return None
    day = f"2024-01-{number % 28 + 1:02}"
    known = {
        "date": day,
        "date-time": f"{day}T00:00:00Z",
        "time": "12:00:00",
        "duration": "PT1S",
        "uuid": f"00000000-0000-4000-8000-{number:012}",
    }
    return known.get(schema.get("format", ""), f"echo:{subject}")


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def _xml_element(prompt: Prompt, name: str, value: Any, scripted: dict[str, Any] | None) -> str:
    structure = prompt.structures.get(name)
    if structure and name not in (scripted or {}):
        # The prompt does not state the types of nested parts; "1" reads as text, number and truth alike.
        empty = f"<{name}>...</{name}>"
        return f"<{name}></{name}>" if structure == empty else structure.replace("...", "1")
    escaped = _text(value).replace("&", "&amp;").replace("<", "&lt;")
    return f"<{name}>\n{escaped}\n</{name}>"
