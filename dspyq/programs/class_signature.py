"""Signature of a program's class: derived if the configuration states none, else compared with the stated one."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import dspy

from dspyq.config.programs import Program
from dspyq.config.signature import BARE_NAMES, Field, Signature, SignatureError, parse_signature
from dspyq.errors import ConfigurationError

#: The output that DSPy's ``ChainOfThought`` adds before those of its signature.
_REASONING = "reasoning"
_EMPTY = inspect.Parameter.empty


def derive_signature(program: Program, module: dspy.Module) -> Signature:
    """Return the signature of a class: the arguments of ``forward``, and the outputs of its last predictor.

    Args:
        program: The program.
        module: An instance of its class.

    Raises:
        ConfigurationError: If the class leaves it open; the signature has to be stated then.
    """
    try:
        outputs = _derived_outputs(module)
        inputs = list(_derived_inputs(module))
        return parse_signature(f"{', '.join(inputs)} -> {', '.join(outputs)}")
    except SignatureError as error:
        raise ConfigurationError(
            f"programs.{program.name}.signature: missing, and {type(module).__name__} leaves it open: {error}; state "
            "it, as in 'question -> answer'"
        ) from None


def signature_notes(program: Program, module: dspy.Module) -> Iterator[str]:
    """Yield a note for a signature that producers lack, or that differs from the class.

    Args:
        program: A program of a class.
        module: An instance of it.
    """
    try:
        derived = derive_signature(program, module)
    except ConfigurationError:
        return
    setting = program.setting("signature")
    name = type(module).__name__
    if not program.states_signature:
        yield f"{setting}: producers need it, for they do not load {name}; add: signature = {_toml_text(derived)}"
    elif _names_of(derived) != _names_of(program.signature):
        yield (
            f"{setting}: it states {_toml_text(program.signature)}, but {name}'s predictors make {_toml_text(derived)};"
            " keep it if forward takes and returns what it states"
        )


def differences_from_signature(program: Program, module: dspy.Module) -> Iterator[str]:
    """Yield the differences between a class and the stated signature."""
    setting = program.setting("signature", "class")
    name = type(module).__name__
    arguments = dict.fromkeys(field.name for field in program.signature.inputs)
    forward = forward_of(module)
    try:
        inspect.signature(forward).bind(module, **arguments)
    except TypeError as error:
        yield f"{setting}: {name}.{forward.__name__} does not take these inputs: {error}"
    for field in program.signature.outputs:
        predicted = [
            predictor.signature.output_fields[field.name].annotation
            for _, predictor in module.named_sub_modules(dspy.Predict)
            if field.name in predictor.signature.output_fields
        ]
        if predicted and _normal_form(field.resolve()) not in map(_normal_form, predicted):
            found = getattr(predicted[-1], "__name__", predicted[-1])
            yield f"{setting}: the output {field.name} is stated as {field.type_text}, but {name} predicts {found}"


def forward_of(module: dspy.Module) -> Callable[..., Any]:
    """Return the method that runs a program: ``forward``, or ``aforward`` if that is its only one."""
    class_: Any = type(module)
    forward: Callable[..., Any] = class_.forward if hasattr(class_, "forward") else class_.aforward
    return forward


def _toml_text(signature: Signature) -> str:
    return json.dumps(str(signature), ensure_ascii=False)


def _names_of(signature: Signature) -> tuple[set[str], set[str]]:
    required = {field.name for field in signature.inputs if not field.may_be_left_out}
    return required, {field.name for field in signature.outputs}


def _derived_outputs(module: dspy.Module) -> list[str]:
    """Return the outputs of the one predictor whose outputs no other predictor takes."""
    predictors = dict(module.named_sub_modules(dspy.Predict))
    taken = [(path, set(predictor.signature.input_fields)) for path, predictor in predictors.items()]
    last = {
        path: predictor
        for path, predictor in predictors.items()
        if not any(other != path and taken_by & set(_outputs_of(predictor)) for other, taken_by in taken)
    }
    answers = {tuple(_outputs_of(predictor)) for predictor in last.values()}
    if len(answers) != 1:
        raise SignatureError(
            f"its predictors {', '.join(path.removeprefix('self.') for path in last)} predict different outputs"
            if last
            else "it has no predictor"
        )
    (outputs,) = answers
    fields = next(iter(last.values())).signature.output_fields
    return [f"{name}: {type_text(fields[name].annotation)}" for name in outputs]


def _outputs_of(predictor: dspy.Predict) -> list[str]:
    names = list(predictor.signature.output_fields)
    return [name for name in names if name != _REASONING] or names


def _derived_inputs(module: dspy.Module) -> Iterator[str]:
    """Yield the arguments of ``forward``, or the first predictor's inputs if ``forward`` takes any argument."""
    predicted = {
        name: field.annotation
        for _, predictor in reversed(list(module.named_sub_modules(dspy.Predict)))
        for name, field in predictor.signature.input_fields.items()
    }
    forward = forward_of(module)
    try:
        parameters = list(inspect.signature(forward, eval_str=True).parameters.values())[1:]
    except (NameError, TypeError, ValueError) as error:
        raise SignatureError(f"the arguments of {forward.__name__} cannot be read: {error}") from None
    named = [each for each in parameters if each.kind not in {each.VAR_KEYWORD, each.VAR_POSITIONAL}]
    if not named:
        first = next(predictor for _, predictor in module.named_sub_modules(dspy.Predict))
        yield from (str(_field(name, field.annotation, _EMPTY)) for name, field in first.signature.input_fields.items())
    for parameter in named:
        annotation = predicted.get(parameter.name, str) if parameter.annotation is _EMPTY else parameter.annotation
        yield str(_field(parameter.name, annotation, parameter.default))


def _field(name: str, annotation: Any, default: Any) -> Field:
    stated = type_text(annotation)
    if default is _EMPTY:
        return Field(name, stated)
    if default is None:  # an argument left out is not passed, so Python's default applies
        field = Field(name, stated)
        return field if field.may_be_left_out else Field(name, f"{stated} | None")
    return Field(name, stated, repr(default))


def type_text(annotation: Any) -> str:  # noqa: PLR0911 - one for each kind of type
    """Return a type in the notation of signatures.

    Raises:
        SignatureError: If it cannot be stated there.
    """
    if annotation is None or annotation is types.NoneType:
        return "None"
    origin, parameters = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(parameters[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, parameters))}]"
    if origin in {Union, UnionType}:
        return " | ".join(map(type_text, parameters))
    if parameters:
        return f"{type_text(origin)}[{', '.join('...' if each is ... else type_text(each) for each in parameters)}]"
    for name, type_ in BARE_NAMES.items():
        if type_ is annotation:
            return name
    name, module = getattr(annotation, "__qualname__", ""), getattr(annotation, "__module__", "")
    if getattr(dspy, name, None) is annotation:
        return f"dspy.{name}"
    path = f"{module}.{name}"
    if not all(part.isidentifier() for part in path.split(".")):
        raise SignatureError(f"the type {annotation!r} has no dotted path")
    return path


def _normal_form(annotation: Any) -> Any:
    """Return a form that annotations of one type share, such as ``List[str]`` and ``list[str]``."""
    origin = get_origin(annotation)
    if origin in (None, Literal):
        return annotation
    if origin is Annotated:
        return _normal_form(get_args(annotation)[0])
    parts = tuple(_normal_form(part) for part in get_args(annotation))
    if origin in (Union, UnionType):
        return Union, frozenset(parts)
    return (origin, parts) if parts else origin
