"""Inputs as JSON schemas, and numbers in them as those have them.

JSON has one kind of number: to its schemas, 2.0 is an integer. Python's strict check and the canonical form tell them
apart, so the door writes whole numbers as integers where a field has integers, before both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
from pydantic.json_schema import DEFAULT_REF_TEMPLATE, JsonSchemaMode
from typing_extensions import TypedDict

from dspyq.config.settings import get_settings
from dspyq.config.signature import Field, SignatureError
from dspyq.core.runtime import per_runtime

if TYPE_CHECKING:
    from dspyq.config.programs import Program

#: Integers that the parser reads as such.
LEAST_INTEGER, MOST_INTEGER = -(2**63), 2**64 - 1


class SchemaForm(NamedTuple):
    """Form of a schema.

    Attributes:
        is_of_outputs: Whether it is of outputs, as they are written, not of inputs, as they are read.
        references: How it refers to the schemas of nested types, with their names as ``{model}``.
    """

    is_of_outputs: bool = False
    references: str = DEFAULT_REF_TEMPLATE


OF_INPUTS = SchemaForm()


def fields_schema(program: Program, form: SchemaForm = OF_INPUTS) -> dict[str, Any]:
    """Return the JSON schema of an object with a program's inputs, or with its outputs.

    The schema of a field whose type is DSPy's, has no schema, or is not installed here, is open.
    """
    fields = program.signature.outputs if form.is_of_outputs else program.signature.inputs
    types = {field.name: _described_type(field, form) for field in fields}
    shape = TypedDict("shape", types)  # type: ignore[misc]  # its fields are the configuration's
    shape.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]  # where pydantic looks
    mode: JsonSchemaMode = "serialization" if form.is_of_outputs else "validation"
    schema = TypeAdapter(shape).json_schema(mode=mode, ref_template=form.references)
    schema.pop("title", None)
    for field in fields:
        own = schema["properties"][field.name]
        if (stated := program.fields.get(field.name)) is not None:
            own["description"] = stated.description
        if field.default_text is not None and not form.is_of_outputs:
            own["default"] = field.default
    _bound_integers(schema)
    return schema


def _described_type(field: Field, form: SchemaForm) -> Any:
    type_: Any = Any
    if not field.is_of_dspy:
        try:
            type_ = field.resolve()
            TypeAdapter(type_).json_schema()
        except (SignatureError, PydanticSchemaGenerationError, PydanticInvalidForJsonSchema):
            type_ = Any
    return NotRequired[type_] if field.may_be_left_out and not form.is_of_outputs else type_


def _bound_integers(schema: Any) -> None:
    """Bound integers that have no bounds to those that the parser reads as such."""
    if isinstance(schema, list):
        for each in schema:
            _bound_integers(each)
    if isinstance(schema, dict):
        if schema.get("type") == "integer" and "enum" not in schema and "const" not in schema:
            if not {"minimum", "exclusiveMinimum"} & schema.keys():
                schema["minimum"] = LEAST_INTEGER
            if not {"maximum", "exclusiveMaximum"} & schema.keys():
                schema["maximum"] = MOST_INTEGER
        for each in schema.values():
            _bound_integers(each)


def whole_numbers(program: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return inputs with integers in place of whole numbers such as 2.0, where a field has integers."""
    schemas = _integer_schemas(program)
    if not schemas:
        return inputs
    return {
        name: _whole(value, schemas[name], schemas[name]) if name in schemas else value
        for name, value in inputs.items()
    }


def _integer_schemas(program: str) -> dict[str, dict[str, Any]]:
    """Return the schemas of a program's inputs that have integers somewhere."""
    known = _known_integer_schemas()
    if program not in known:
        schema = fields_schema(get_settings().programs[program])
        types = {"$defs": schema.get("$defs", {})}
        known[program] = {name: own | types for name, own in schema["properties"].items() if _has_integers(own | types)}
    return known[program]


@per_runtime(is_kept=True)
def _known_integer_schemas() -> dict[str, dict[str, dict[str, Any]]]:
    return {}


def _has_integers(schema: Any) -> bool:
    if isinstance(schema, dict):
        return schema.get("type") == "integer" or any(map(_has_integers, schema.values()))
    return isinstance(schema, list) and any(map(_has_integers, schema))


def _whole(value: Any, schema: Any, root: dict[str, Any]) -> Any:
    """Return a value with whole numbers as integers wherever its schema has integers and no other numbers."""
    if not isinstance(schema, dict) or isinstance(value, str | bool | int | None):
        return value
    if (reference := schema.get("$ref", "")).startswith("#/$defs/"):
        return _whole(value, root["$defs"][reference.removeprefix("#/$defs/")], root)
    if isinstance(value, float):
        return _whole_number(value) if _wants_integer(schema) else value
    choices = [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    for each in choices[1:]:
        value = _whole(value, each, root)
    if isinstance(value, list):
        first, rest = schema.get("prefixItems", []), schema.get("items", {})
        return [_whole(part, first[at] if at < len(first) else rest, root) for at, part in enumerate(value)]
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    return {name: _whole(part, properties.get(name, others), root) for name, part in value.items()}


def _wants_integer(schema: dict[str, Any]) -> bool:
    choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    named = {schema.get("type"), *(each.get("type") for each in choices if isinstance(each, dict))}
    return "integer" in named and "number" not in named


def _whole_number(value: float) -> float | int:
    # The parser makes a float of an integer beyond 64 bits: one at the bound may stand for several.
    return int(value) if value.is_integer() and LEAST_INTEGER < value < MOST_INTEGER else value
