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
import json
import operator
import sys
import typing
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_BUILTIN = ("str", "int", "float", "bool", "bytes", "list", "dict", "tuple", "set", "frozenset")
_TYPING = ("Any", "Literal", "Optional", "Union", "List", "Dict", "Tuple", "Set")
_DATETIME = ("date", "datetime", "time", "timedelta")
BARE_NAMES: dict[str, Any] = {
    **{name: getattr(builtins, name) for name in _BUILTIN},
    **{name: getattr(typing, name) for name in _TYPING},
    **{name: getattr(datetime, name) for name in _DATETIME},
    "Decimal": decimal.Decimal,
    "UUID": uuid.UUID,
    "None": None,
}
_NOT_JSON = frozenset({"bytes", "tuple", "Tuple", "set", "Set", "frozenset", *_DATETIME, "Decimal", "UUID"})
_OPEN = frozenset({"Any", "dict", "Dict", "list", "List"})
_LITERALS = frozenset({"Literal", "typing.Literal"})


class SignatureError(ValueError):
    """The text is no signature; the message states the reason in one line."""


@dataclass(frozen=True)
class Field:
    """One input or output of a program.

    Attributes:
        name: The field's name, a Python identifier.
        type_text: Its type as stated, ``str`` where none is.
        default_text: The value of an input that is left out, as stated; None where none is.
    """

    name: str
    type_text: str
    default_text: str | None = None

    def __str__(self) -> str:
        """Return the field as a signature states it."""
        default = "" if self.default_text is None else f" = {self.default_text}"
        return f"{self.name}: {self.type_text}{default}"

    @functools.cached_property
    def default(self) -> Any:
        """Value of the input where the caller leaves it out; None without a default."""
        return None if self.default_text is None else ast.literal_eval(self.default_text)

    @functools.cached_property
    def may_be_left_out(self) -> bool:
        """True if an input has a default, or a type that allows None, as in DSPy."""
        return self.default_text is not None or _allows_none(_parse(self.type_text))

    @functools.cached_property
    def is_json(self) -> bool:
        """True if JSON carries values of this type unchanged, with nothing to rebuild."""
        return _is_json(_parse(self.type_text))

    @functools.cached_property
    def open_part(self) -> str | None:
        """The first part of the type that leaves open which values it holds, as ``Any`` or ``dict``; None without."""
        return next(_open_parts(_parse(self.type_text)), None)

    @property
    def is_of_dspy(self) -> bool:
        """True if it contains a type of DSPy, such as ``dspy.Image``."""
        return any(name.startswith("dspy.") for name in _names(_parse(self.type_text)))

    @property
    def is_loaded(self) -> bool:
        """True if it resolves without loading DSPy, which producers do not need."""
        return "dspy" in sys.modules or not self.is_of_dspy

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
        return " -> ".join(", ".join(map(str, side)) for side in sides)


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
    try:
        inputs, outputs = (tuple(_fields(side, text)) for side in sides)
    except (RecursionError, MemoryError):  # Python's own parser raises both
        raise SignatureError(f"a signature of {len(text):,} characters nests its types too deeply") from None
    names = [field.name for field in (*inputs, *outputs)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SignatureError(f"signature {text!r} names {', '.join(repeated)} more than once")
    if any(field.default_text is not None for field in outputs):
        raise SignatureError(f"signature {text!r} gives an output a default; only an input can be left out")
    return Signature(inputs, outputs)


def describe_misfits(program: Signature, variant: Signature) -> str:
    """Return what keeps a variant's signature from serving its program's callers; "" if nothing does."""
    inputs, outputs = ({field.name: field for field in side} for side in (variant.inputs, variant.outputs))
    misfits = [f"it adds the input {name}" for name in inputs if name not in {each.name for each in program.inputs}]
    for kind, stated, own in (("input", program.inputs, inputs), ("output", program.outputs, outputs)):
        for field in stated:
            if field.name not in own:
                misfits.append(f"it lacks the {kind} {field.name}")
            elif own[field.name] != field:
                misfits.append(f"it changes the {kind} {field} to {own[field.name]}")
    return ", ".join(misfits)


def _fields(side: str, text: str) -> Iterator[Field]:
    if not side.strip():
        raise SignatureError(f"signature {text!r} must name at least one input and one output")
    try:
        # Python requires positional arguments with defaults to come last; keyword-only ones may stand anywhere.
        (function,) = ast.parse(f"def fields({'*, ' if '=' in side else ''}{side}): pass").body
    except SyntaxError as error:
        raise SignatureError(f"signature {text!r} does not read as 'name: type, ...': {error.msg}") from error
    if not isinstance(function, ast.FunctionDef):
        raise SignatureError(f"signature {text!r} must name at least one input and one output")
    arguments = function.args
    if any((*arguments.posonlyargs, arguments.vararg, arguments.kwarg)) or (arguments.kwonlyargs and "=" not in side):
        raise SignatureError(f"signature {text!r} takes names, types and defaults only: no '*' and no '/'")
    defaults = arguments.kw_defaults or [None] * len(arguments.args)
    for argument, default in zip(arguments.args or arguments.kwonlyargs, defaults, strict=True):
        annotation = argument.annotation or ast.Name("str")
        _check(annotation, text)
        yield Field(argument.arg, ast.unparse(annotation), None if default is None else _literal(default, text))


def _literal(default: ast.expr, text: str) -> str:
    try:
        json.dumps(ast.literal_eval(default), allow_nan=False)
    except (TypeError, ValueError):
        stated = ast.unparse(default)
        raise SignatureError(f"signature {text!r} has the default {stated}, which is no JSON value") from None
    return ast.unparse(default)


def _allows_none(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=None):
            return True
        case ast.BinOp(left=left, right=right):
            return _allows_none(left) or _allows_none(right)
        case ast.Subscript(value=generic, slice=parameters):
            name = ast.unparse(generic).removeprefix("typing.")
            options = parameters.elts if isinstance(parameters, ast.Tuple) else [parameters]
            return name == "Optional" or (name == "Union" and any(map(_allows_none, options)))
        case _:
            return False


def _parse(type_text: str) -> ast.expr:
    return ast.parse(type_text, mode="eval").body


def _check(node: ast.expr, text: str) -> None:
    for name in _names(node):
        if "." not in name and name not in BARE_NAMES:
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


def _open_parts(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Name(id=name) if name in _OPEN:
            yield name
        case ast.Subscript(value=generic, slice=parameters) if ast.unparse(generic) not in _LITERALS:
            yield from _open_parts(parameters)
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            for element in elements:
                yield from _open_parts(element)
        case ast.BinOp(left=left, right=right):
            yield from _open_parts(left)
            yield from _open_parts(right)


def _constants(node: ast.expr) -> Iterator[object]:
    return (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))


def _resolve(node: ast.expr, text: str) -> Any:
    match node:
        case ast.Name(id=name):
            return BARE_NAMES[name]
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
    """Import a dotted path: a module, then a name in it, and names within that."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module_path = ".".join(parts[:length])
        try:
            return operator.attrgetter(".".join(parts[length:]))(importlib.import_module(module_path))
        except ModuleNotFoundError as error:
            if length > 1 and error.name is not None and f"{module_path}.".startswith(f"{error.name}."):
                continue  # what stands before the last name may be a class
            raise SignatureError(f"type {text!r}: {path} does not import ({error})") from error
        except (ImportError, AttributeError) as error:
            raise SignatureError(f"type {text!r}: {path} does not import ({error})") from error
    raise SignatureError(f"type {text!r}: {path} does not import")
