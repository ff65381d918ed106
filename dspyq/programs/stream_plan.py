"""Choice of the texts of a program that are streamed: which fields of which predictors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import dspy

from dspyq.config.programs import Program
from dspyq.errors import ConfigurationError
from dspyq.programs.own_models import predictor_paths

#: These modules run copies of their predictors, and change themselves while they run.
REPEATING_MODULES = (dspy.BestOfN, dspy.Refine)


class StreamPlan(NamedTuple):
    """The streamed fields of a program.

    Attributes:
        fields: By the path of a predictor.
        reason: Why none is streamed; empty where some are.
    """

    fields: Mapping[str, frozenset[str]]
    reason: str


def plan_stream(program: Program, module: dspy.Module) -> StreamPlan:
    """Return the streamed fields of a program.

    Raises:
        ConfigurationError: If its setting ``stream`` names a predictor or field that the program does not have.
    """
    setting = f"programs.{program.name}.stream"
    if program.stream is False:
        return StreamPlan({}, f"{setting} is false")
    predictors = predictor_paths(module)
    texts = {path: _texts(predictor) for path, predictor in predictors.items()}
    if program.stream is True:
        wanted = {(path, field) for path in texts for field in program.streamed_fields}
    else:
        wanted = {pair for name in program.stream for pair in _named(name, setting, texts)}
    repeated = _repeated(module)
    fields = {
        path: streamed
        for path, names in texts.items()
        if id(predictors[path]) not in repeated
        and (streamed := frozenset(field for field in names if (path, field) in wanted))
    }
    if fields:
        return StreamPlan(fields, "")
    if repeated:
        return StreamPlan({}, "its module tries several times")
    return StreamPlan({}, "no predictor of the program has an output of type str that is streamed")


def _texts(predictor: dspy.Predict) -> frozenset[str]:
    """Return the outputs of a predictor that are texts."""
    outputs = predictor.signature.output_fields
    return frozenset(name for name, field in outputs.items() if field.annotation is str)


def _repeated(module: dspy.Module) -> set[int]:
    """Return the ids of the predictors that a module runs copies of."""
    holders = [holder for _, holder in module.named_sub_modules(REPEATING_MODULES)]
    return {id(predictor) for holder in holders for predictor in predictor_paths(holder).values()}


def _named(name: str, setting: str, texts: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, str]]:
    """Yield the predictors and fields that an entry of the setting names.

    Raises:
        ConfigurationError: If it names none.
    """
    path, _, field = name.rpartition(".")
    found = [each for each, names in texts.items() if field in names and path in {"", each}]
    if not found:
        known = ", ".join(sorted(f"{each}.{one}" for each, names in texts.items() for one in names)) or "none"
        raise ConfigurationError(f"{setting}: {name!r} is no output of type str of a predictor; those are: {known}")
    yield from ((each, field) for each in found)
