"""A program's signature, read from its text alone.

``question, context: list[str] -> answer, verdict: Literal["yes", "no"]`` is DSPy's notation. Producers must know the
fields without loading DSPy, and a worker must build exactly what its producers check, so both read it here.

Types are Python's built-in ones, those of ``typing``, ``datetime``, ``decimal``, ``uuid`` and ``enum`` by their bare
names, and any other by its dotted path (``mypackage.types.Verdict``), imported when it is first needed.
"""

from __future__ import annotations

import ast
import builtins
import datetime
import decimal
import functools
import importlib
import operator
import typing
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_BUILTIN = ("str", "int", "float", "bool", "bytes", "list", "dict", "tuple", "set")
_TYPING = ("Any", "Literal", "Optional", "Union", "List", "Dict", "Tuple", "Set")
_DATETIME = ("date", "datetime", "time", "timedelta")
_BARE_NAMES: dict[str, Any] = {
    **{name: getattr(builtins, name) for name in _BUILTIN},
    **{name: getattr(typing, name) for name in _TYPING},
    **{name: getattr(datetime, name) for name in _DATETIME},
    "Decimal": decimal.Decimal,
    "UUID": uuid.UUID,
    "None": None,
}
_NOT_JSON = frozenset({"bytes", "tuple", "Tuple", "set", "Set", *_DATETIME, "Decimal", "UUID"})
_LITERALS = frozenset({"Literal", "typing.Literal"})


class SignatureError(ValueError):
    """The text is no signature; the message says why in one line."""


@dataclass(frozen=True)
class Field:
    """One input or output of a program.

    Attributes:
        name: The field's name, a Python identifier.
        type_text: Its type as stated, ``str`` where none is.
    """

    name: str
    type_text: str

    @functools.cached_property
    def is_json(self) -> bool:
        """Whether values of this type come out of JSON as they went in, with nothing to rebuild."""
        return _is_json(_parse(self.type_text))

    @property
    def needs_import(self) -> bool:
        """Whether the type is named by a dotted path, and so needs its module."""
        return any("." in name for name in _names(_parse(self.type_text)))

    def resolve(self) -> Any:
        """Return the Python type.

        Raises:
            SignatureError: If a name in it is unknown or its module does not import.
        """
        return _resolve(_parse(self.type_text), self.type_text)


@dataclass(frozen=True)
class Signature:
    """A program's fields in their order.

    Attributes:
        inputs: What a caller passes.
        outputs: What a prediction holds.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]

    def __str__(self) -> str:
        """Return the canonical text: two texts that differ in spacing only are one signature."""
        sides = (self.inputs, self.outputs)
        return " -> ".join(", ".join(f"{field.name}: {field.type_text}" for field in side) for side in sides)


@functools.lru_cache(maxsize=256)
def parse_signature(text: str) -> Signature:
    """Read a signature in DSPy's notation.

    Raises:
        SignatureError: If the text has not exactly one ``->``, a side is empty, a field is named twice, or a type is
            none this module reads.
    """
    sides = text.split("->")
    if len(sides) != 2:  # noqa: PLR2004 - inputs and outputs
        raise SignatureError(f"signature {text!r} must have the form 'inputs -> outputs', with exactly one '->'")
    inputs, outputs = (tuple(_fields(side, text)) for side in sides)
    names = [field.name for field in (*inputs, *outputs)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SignatureError(f"signature {text!r} names {', '.join(repeated)} more than once")
    return Signature(inputs, outputs)


def _fields(side: str, text: str) -> Iterator[Field]:
    try:
        (function,) = ast.parse(f"def fields({side}): pass").body
    except SyntaxError as error:
        raise SignatureError(f"signature {text!r} does not read as 'name: type, ...': {error.msg}") from error
    if not isinstance(function, ast.FunctionDef) or not function.args.args:
        raise SignatureError(f"signature {text!r} must name at least one input and one output")
    if any(_beside_plain_fields(function.args)):
        raise SignatureError(f"signature {text!r} takes names and types only: no '*', no '/' and no default")
    for argument in function.args.args:
        annotation = argument.annotation or ast.Name("str")
        _check(annotation, text)
        yield Field(argument.arg, ast.unparse(annotation))


def _beside_plain_fields(arguments: ast.arguments) -> Iterator[object]:
    """What a function may have that a signature may not, and that would get lost without a word."""
    yield from (*arguments.posonlyargs, *arguments.kwonlyargs, *arguments.defaults)
    yield from (star for star in (arguments.vararg, arguments.kwarg) if star)


def _parse(type_text: str) -> ast.expr:
    return ast.parse(type_text, mode="eval").body


def _check(node: ast.expr, text: str) -> None:
    for name in _names(node):
        if "." not in name and name not in _BARE_NAMES:
            raise SignatureError(
                f"signature {text!r} uses the type {name!r}; write types of your own by their dotted path "
                f"(mypackage.types.{name})"
            )


def _names(node: ast.expr) -> Iterator[str]:
    """The type names in an annotation; values inside ``Literal[...]`` are none."""
    match node:
        case ast.Name(id=name):
            yield name
        case ast.Attribute():
            yield ast.unparse(node)
        case ast.Constant(value=None):
            yield "None"
        case ast.Subscript(value=generic, slice=parameters):
            yield from _names(generic)
            if ast.unparse(generic) not in _LITERALS:
                yield from _names(parameters)
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            for element in elements:
                yield from _names(element)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            yield from _names(left)
            yield from _names(right)
        case ast.Constant(value=value) if value is Ellipsis:
            return
        case _:
            raise SignatureError(f"{ast.unparse(node)!r} is not a type a signature can state")


def _is_json(node: ast.expr) -> bool:
    match node:
        case ast.Subscript(value=generic, slice=values) if ast.unparse(generic) in _LITERALS:
            return not any(isinstance(constant, bytes) for constant in _constants(values))
        case ast.Subscript(value=ast.Name(id="dict" | "Dict"), slice=ast.Tuple(elts=[key, value])):
            # JSON's keys are strings: any other key has to be rebuilt.
            return ast.unparse(key) == "str" and _is_json(value)
        case ast.Subscript(value=generic, slice=parameters):
            return _is_json(generic) and _is_json(parameters)
        case ast.Tuple(elts=elements):
            return all(map(_is_json, elements))
        case ast.BinOp(left=left, right=right):
            return _is_json(left) and _is_json(right)
        case _:
            return not any(name in _NOT_JSON or "." in name for name in _names(node))


def _constants(node: ast.expr) -> Iterator[object]:
    return (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))


def _resolve(node: ast.expr, text: str) -> Any:
    match node:
        case ast.Name(id=name):
            return _BARE_NAMES[name]
        case ast.Attribute():
            return _import(ast.unparse(node), text)
        case ast.Subscript(value=generic, slice=parameters):
            literal = ast.unparse(generic) in _LITERALS
            elements = parameters.elts if isinstance(parameters, ast.Tuple) else [parameters]
            values = tuple(ast.literal_eval(element) if literal else _resolve(element, text) for element in elements)
            return _resolve(generic, text)[values[0] if len(values) == 1 else values]
        case ast.BinOp(left=left, right=right):
            return operator.or_(_resolve(left, text), _resolve(right, text))
        case ast.Constant(value=value):
            return value
        case _:
            raise SignatureError(f"{text!r} is not a type a signature can state")


def _import(path: str, text: str) -> Any:
    module_path, _, rest = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module_path), rest)
    except (ImportError, AttributeError) as error:
        raise SignatureError(f"type {text!r}: {path} does not import ({error})") from error
