"""The module and the adapter of a program, built as the configuration states them."""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import operator
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dspy

from dspyq.config.codec import decode_outputs, find_type_faults
from dspyq.config.programs import Program
from dspyq.core.events import Event
from dspyq.errors import ConfigurationError, NotAPrediction
from dspyq.programs import dspy_memo
from dspyq.programs.class_signature import differences_from_signature
from dspyq.programs.own_models import assign_models
from dspyq.programs.state import read_state

logger = logging.getLogger("dspyq.programs")


def build_parts(program: Program, own_lms: Mapping[str, dspy.LM]) -> tuple[dspy.Module, dspy.Adapter]:
    """Build a program and its adapter, with their own models replaced by those of the configuration."""
    faults: list[str] = []
    parts: list[Any] = []
    for build in (_build_module, lambda program: _build_adapter(program, own_lms)):
        try:
            parts.append(build(program))
        except ConfigurationError as error:
            faults.extend(error.faults)
    if faults:
        raise ConfigurationError(faults)
    module, adapter = parts
    if len(own_lms) == len(program.models):
        assign_models(f"programs.{program.name}", module, adapter, own_lms, checks_names=program.has_one_structure)
    return module, adapter


def _build_adapter(program: Program, own_lms: Mapping[str, dspy.LM]) -> dspy.Adapter:
    setting = program.setting("adapter")
    path = program.adapter if ":" in program.adapter else f"dspy:{program.adapter}"
    adapter_class = _import_class(path, dspy.Adapter, setting)
    # As dspy.TwoStepAdapter, which takes its model.
    taken = {f"{name}{end}": lm for name, lm in own_lms.items() for end in ("", "_model", "_lm")}
    taken = {name: taken[name] for name in inspect.signature(adapter_class).parameters.keys() & taken.keys()}
    adapter: dspy.Adapter = _construct(functools.partial(adapter_class, **taken) if taken else adapter_class, setting)
    dspy_memo.cache_signature_texts(adapter)
    return adapter


def _build_module(program: Program) -> dspy.Module:
    faults = [*find_type_faults(program), *_fallback_faults(program)]
    if faults:
        raise ConfigurationError(faults)
    module = module_of_class(program) if program.class_path else _module_of_signature(program)
    if program.state:
        _load_state(program, program.state, module)
    return module


def _fallback_faults(program: Program) -> Iterator[str]:
    if program.fallback_outputs is not None:
        try:
            decode_outputs(program, program.fallback_outputs)
        except NotAPrediction:
            yield f"programs.{program.name}.fallback_outputs: they do not fit the signature {program.signature_text!r}"


def _module_of_signature(program: Program) -> dspy.Module:
    setting = program.setting("signature")
    described = {name: {"desc": field.description} for name, field in program.fields.items()}
    inputs = {f.name: (f.resolve(), dspy.InputField(**described.get(f.name, {}))) for f in program.signature.inputs}
    outputs = {f.name: (f.resolve(), dspy.OutputField(**described.get(f.name, {}))) for f in program.signature.outputs}
    fields = inputs | outputs
    reserved = sorted(name for name in fields if isinstance(getattr(type(dspy.Signature), name, None), property))
    if reserved:
        raise ConfigurationError(f"{setting}: DSPy has a use of its own for the name {', '.join(reserved)}; rename it")
    try:
        signature = dspy.make_signature(fields, program.instructions)
        return getattr(dspy, program.module)(signature)
    except Exception as error:
        raise ConfigurationError(f"{setting}: {type(error).__name__}: {error}") from error


def module_of_class(program: Program) -> dspy.Module:
    """Return an instance of a program's class, compared with the signature that the file states."""
    setting = program.setting("class")
    program_class = _import_class(str(program.class_path), dspy.Module, setting)
    if not (hasattr(program_class, "forward") or hasattr(program_class, "aforward")):
        raise ConfigurationError(f"{setting}: {program_class.__name__} has no method forward or aforward")
    module = _construct(program_class, setting)
    if program.states_signature and (faults := list(differences_from_signature(program, module))):
        raise ConfigurationError(faults)
    return module


def _import_class(path: str, base: type, setting: str) -> type:
    module_path, _, name = path.partition(":")
    try:
        found = operator.attrgetter(name)(importlib.import_module(module_path))
    except Exception as error:
        raise ConfigurationError(f"{setting}: {path} does not import: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigurationError(f"{setting}: {path} is no subclass of dspy.{base.__name__}")
    return found


def _name_of(class_: Callable[[], Any]) -> str:
    return str(getattr(class_, "__name__", class_))


def _construct(class_: Callable[[], Any], setting: str) -> Any:
    try:
        return class_()
    except Exception as error:
        raise ConfigurationError(
            f"{setting}: {_name_of(class_)}() raised {type(error).__name__}: {error}; it is built without arguments"
        ) from error


def _load_state(program: Program, path: Path, module: dspy.Module) -> None:
    parameters = dict(module.named_parameters())
    fresh = {name: parameter.dump_state() for name, parameter in parameters.items()}
    state = read_state(program, path, fresh)
    try:
        for name, parameter in parameters.items():
            parameter.load_state(state[name])
    except Exception as error:
        raise ConfigurationError(
            f"{program.setting('state')}: {path} does not load: {type(error).__name__}: {error}"
        ) from error
    loaded = {name: parameter.dump_state() for name, parameter in parameters.items()}
    if program.replaces("instructions") and _instructions(loaded) != _instructions(fresh):
        raise ConfigurationError(
            f"{program.setting('instructions')}: {path} has instructions of its own, which would take their place; "
            f'state = "" in the same table leaves it out'
        )
    if loaded == fresh:
        if program.allow_unchanged_state:
            logger.warning(Event("state_changes_nothing", setting=program.setting("state"), path=str(path)))
            return
        raise ConfigurationError(
            f"{program.setting('state')}: {path} changes nothing, so that the program would be served as it was "
            "before it was optimized: what KNNFewShot and others keep beside demos and instructions is in no such "
            "file; build that in the class and leave state out, or set allow_unchanged_state = true"
        )


def _instructions(state: Mapping[str, Any]) -> list[str | None]:
    return [predictor.get("signature", {}).get("instructions") for predictor in state.values()]
