"""The programs of the configuration, built once per process and run from any thread."""

from __future__ import annotations

import importlib
import inspect
import logging
import operator
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import dspy
from dspy.predict import best_of_n, refine
from dspy.utils.exceptions import AdapterParseError
from pydantic import JsonValue

from dspyq.config.codec import decode_inputs, decode_outputs, encode_outputs, find_type_faults
from dspyq.config.models import DSPY_VERSION, Program, Variant
from dspyq.config.settings import Settings
from dspyq.errors import (
    ConfigurationError,
    InvalidOutputs,
    NotAPrediction,
    PredictionFailed,
    TransientPredictionFailure,
)
from dspyq.guards.ledger import Answer, Ledger
from dspyq.guards.model import Guards
from dspyq.programs import dspy_memo as reuse
from dspyq.programs.engine import LEDGER_SETTING, build_lm
from dspyq.programs.state import read_state

__all__ = ["Answer", "Runner", "build_programs"]

#: These count down on themselves while they run, so every run gets a copy. All others are shared between threads.
_STATEFUL_MODULES = (dspy.BestOfN, dspy.Refine)
#: A predictor takes these for itself, so an input of that name would never reach the prompt.
_PREDICTOR_ARGUMENTS = frozenset({"self", "signature", "new_signature", "demos", "config", "lm"})
_LONGEST_MESSAGE = 2000

_Argument = TypeVar("_Argument")
_Built = TypeVar("_Built")


class Runner:
    """One variant of a program, ready to run."""

    def __init__(
        self, program: Program, module: dspy.Module, lm: dspy.LM, adapter: dspy.Adapter, max_parse_attempts: int = 1
    ) -> None:
        self._max_parse_attempts = max_parse_attempts
        self._program = program
        self._module = module
        self._lm = lm
        self._adapter = adapter
        self._keeps_state = any(isinstance(part, _STATEFUL_MODULES) for _, part in module.named_sub_modules())
        module.set_lm(lm)
        for _, predictor in module.named_sub_modules(dspy.Predict):  # also compiled ones, which set_lm passes over
            predictor.lm = lm

    def run(self, inputs: Mapping[str, JsonValue], ledger: Ledger | None = None) -> Answer:
        """Run the program, from any thread.

        Args:
            inputs: Its input fields as JSON values.
            ledger: What writes down its model calls, and says whose they are; one of no job where left out.

        Raises:
            InvalidInputs: If they do not fit its signature.
            Interruption: If a guard, or its deadline, ended it, whatever the program made of that.
            PredictionFailed: If it raised or returned something unfit; holds the calls made up to there.
        """
        arguments = decode_inputs(self._program, inputs)
        ledger = ledger or Ledger()
        try:
            outputs = self._outputs(self._call_until_parsed(arguments, ledger))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a program may raise what it likes
            if ledger.interruption is not None:
                raise ledger.interruption from None
            failure = error if isinstance(error, PredictionFailed) else _failure(error)
            failure.calls = ledger.calls
            raise failure from (None if failure is error else error)
        finally:
            ledger.close()
        if ledger.interruption is not None:  # the program swallowed it: its answer is a worse one
            raise ledger.interruption
        return Answer(outputs, ledger.calls)

    def close(self) -> None:
        """Close the connections of the variant's model, other variants' too. Not to be used again."""
        self._lm.engine.close()

    def _call_until_parsed(self, arguments: dict[str, Any], ledger: Ledger) -> Any:
        """Run the program anew where the latest reply could not be parsed, on the replies it had before that one."""
        for _ in range(self._max_parse_attempts - 1):
            try:
                return self._call(arguments, ledger)
            except AdapterParseError:
                ledger.begin_again()
        return self._call(arguments, ledger)

    def _call(self, arguments: dict[str, Any], ledger: Ledger) -> Any:
        module = self._module.deepcopy() if self._keeps_state else self._module
        settings = {
            "lm": self._lm,
            "adapter": self._adapter,
            "trace": [],  # a list of its own: the process-wide one grows, and BestOfN needs one
            "disable_history": True,
            "warn_on_type_mismatch": False,  # the inputs have just been checked
            LEDGER_SETTING: ledger,
        }
        with dspy.context(**settings):
            return module(**arguments)

    def _outputs(self, returned: Any) -> dict[str, JsonValue]:
        if not isinstance(returned, dspy.Example | Mapping):
            raise InvalidOutputs(f"{self._program.name} returned a {type(returned).__name__}, not a dspy.Prediction")
        return encode_outputs(self._program, dict(returned.items()))


def build_programs(
    settings: Settings, queues: Container[str] | None = None, guards: Guards | None = None
) -> dict[tuple[str, str], Runner]:
    """Build every variant that is served, without network access.

    Args:
        settings: The configuration.
        queues: The names of the queues that are served; all where left out.
        guards: What stands before their models; nothing where left out.

    Returns:
        The runners by program and variant name.

    Raises:
        ConfigurationError: With every fault.
    """
    if dspy.__version__ != DSPY_VERSION:
        raise ConfigurationError(
            f"dspy {dspy.__version__} is installed, but answers depend on {DSPY_VERSION}: pip install "
            f"dspy=={DSPY_VERSION}"
        )
    _silence(include_content=settings.logging.include_content)
    reuse.type_adapters()
    # Its keys leave out the endpoint, and it would replay a reply that did not parse.
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    faults: list[str] = []

    def collecting(build: Callable[[_Argument], _Built], argument: _Argument) -> _Built | None:
        try:
            return build(argument)
        except ConfigurationError as error:
            faults.extend(error.faults)
            return None

    served = list(_served(settings, queues))
    lms = {variant.model.name: variant.model for _, variant in served}
    built_lms = {name: collecting(lambda model: build_lm(model, guards), model) for name, model in lms.items()}
    runners = {}
    for program, variant in served:
        module, adapter = collecting(_build_module, program), collecting(_build_adapter, program)
        lm = built_lms[variant.model.name]
        if module is not None and adapter is not None and lm is not None:
            attempts = settings.retry.max_parse_attempts if guards else 1
            runners[program.name, variant.name] = Runner(program, module, lm, adapter, attempts)
    if faults:
        raise ConfigurationError(dict.fromkeys(faults))
    return runners


def _served(settings: Settings, queues: Container[str] | None) -> Iterator[tuple[Program, Variant]]:
    for program in settings.programs.values():
        served = [variant for variant in program.variants.values() if queues is None or variant.queue in queues]
        fallback = program.variants.get(program.fallback_variant or "")
        if served and fallback is not None and fallback not in served:
            served.append(fallback)
        yield from ((program, variant) for variant in served)


def _silence(*, include_content: bool) -> None:
    """Keep DSPy off standard output and error; what it logs quotes inputs and replies."""
    dspy.disable_logging()
    warnings.filterwarnings("ignore", "Field name .* shadows an attribute", module="dspy")  # harmless in a signature
    if include_content:
        logging.getLogger("dspy").propagate = True
        return
    for module in (best_of_n, refine):  # these print what an attempt raised
        vars(module)["print"] = _discard


def _discard(*_: object) -> None:
    pass


def _failure(error: BaseException) -> PredictionFailed:
    """What leaves this module in place of an exception that a producer may not know and Celery cannot rebuild."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - an exception of the user's own may fail to say what it is
        text = "(it does not say why)"
    message = f"{type(error).__name__}: {text}"[:_LONGEST_MESSAGE]
    if not isinstance(error, Exception) or not dspy.is_retryable_lm_error(error):
        return PredictionFailed(message)
    failure = TransientPredictionFailure(message)
    failure.retry_after_seconds = getattr(error, "retry_after", None)
    return failure


def _build_adapter(program: Program) -> dspy.Adapter:
    setting = f"programs.{program.name}.adapter"
    path = program.adapter if ":" in program.adapter else f"dspy:{program.adapter}"
    adapter: dspy.Adapter = _construct(_import_class(path, dspy.Adapter, setting), setting)
    reuse.texts_of_signatures(adapter)
    return adapter


def _build_module(program: Program) -> dspy.Module:
    faults = [*find_type_faults(program), *_fallback_faults(program)]
    if faults:
        raise ConfigurationError(faults)
    module = _module_of_class(program) if program.class_path else _module_of_signature(program)
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
    setting = f"programs.{program.name}.signature"
    inputs = {field.name: (field.resolve(), dspy.InputField()) for field in program.signature.inputs}
    outputs = {field.name: (field.resolve(), dspy.OutputField()) for field in program.signature.outputs}
    fields = inputs | outputs
    of_signatures = {name for name in fields if isinstance(getattr(type(dspy.Signature), name, None), property)}
    reserved = sorted(_PREDICTOR_ARGUMENTS & inputs.keys() | of_signatures)
    if reserved:
        raise ConfigurationError(f"{setting}: DSPy has a use of its own for the name {', '.join(reserved)}; rename it")
    try:
        signature = dspy.make_signature(fields, program.instructions)
        return getattr(dspy, program.module)(signature)
    except Exception as error:
        raise ConfigurationError(f"{setting}: {type(error).__name__}: {error}") from error


def _module_of_class(program: Program) -> dspy.Module:
    setting = f"programs.{program.name}.class"
    program_class = _import_class(str(program.class_path), dspy.Module, setting)
    if not hasattr(program_class, "forward"):
        raise ConfigurationError(f"{setting}: {program_class.__name__} has no method forward")
    module = _construct(program_class, setting)
    faults = [*_models_of_its_own(program, module), *_differences_from_signature(program, module)]
    if faults:
        raise ConfigurationError(faults)
    return module


def _models_of_its_own(program: Program, module: dspy.Module) -> Iterator[str]:
    """Name the models that a program brings along: their calls would pass breaker, rate limit and budget by."""
    setting = f"programs.{program.name}.class"
    for path, part in module.named_sub_modules():
        for name, value in vars(part).items():
            if name == "lm" and isinstance(part, dspy.Predict):
                continue  # a predictor's is replaced
            held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
            if any(isinstance(one, dspy.BaseLM) for one in held):
                where = f"{path}.{name}".removeprefix("self").lstrip(".")
                yield (
                    f"{setting}: {type(module).__name__} holds a model of its own, {where}, whose calls would pass the "
                    "guards by; leave it out: [models] and variants say what a program runs on"
                )


def _differences_from_signature(program: Program, module: dspy.Module) -> Iterator[str]:
    setting = f"programs.{program.name}.signature"
    name = type(module).__name__
    arguments = dict.fromkeys(field.name for field in program.signature.inputs)
    try:
        inspect.signature(type(module).forward).bind(module, **arguments)
    except TypeError as error:
        yield f"{setting}: {name}.forward does not take these inputs: {error}"
    for field in program.signature.outputs:
        predicted = [
            predictor.signature.output_fields[field.name].annotation
            for _, predictor in module.named_sub_modules(dspy.Predict)
            if field.name in predictor.signature.output_fields
        ]
        if predicted and _normal_form(field.resolve()) not in map(_normal_form, predicted):
            found = getattr(predicted[-1], "__name__", predicted[-1])
            yield f"{setting}: the output {field.name} is stated as {field.type_text}, but {name} predicts {found}"


def _normal_form(annotation: Any) -> Any:
    """Equal for annotations of the same type: ``List[str]`` and ``list[str]``, ``Optional[int]`` and ``int | None``."""
    origin = get_origin(annotation)
    if origin in (None, Literal):
        return annotation
    if origin is Annotated:
        return _normal_form(get_args(annotation)[0])
    parts = tuple(_normal_form(part) for part in get_args(annotation))
    if origin in (Union, UnionType):
        return Union, frozenset(parts)
    return (origin, parts) if parts else origin


def _import_class(path: str, base: type, setting: str) -> type:
    module_path, _, name = path.partition(":")
    try:
        found = operator.attrgetter(name)(importlib.import_module(module_path))
    except Exception as error:
        raise ConfigurationError(f"{setting}: {path} does not import: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigurationError(f"{setting}: {path} is no subclass of dspy.{base.__name__}")
    return found


def _construct(class_: type, setting: str) -> Any:
    try:
        return class_()
    except Exception as error:
        raise ConfigurationError(
            f"{setting}: {class_.__name__}() raised {type(error).__name__}: {error}; it is built without arguments"
        ) from error


def _load_state(program: Program, path: Path, module: dspy.Module) -> None:
    parameters = dict(module.named_parameters())
    state = read_state(program, path, {name: parameter.dump_state() for name, parameter in parameters.items()})
    try:
        for name, parameter in parameters.items():
            parameter.load_state(state[name])
    except Exception as error:
        raise ConfigurationError(
            f"programs.{program.name}.state: {path} does not load: {type(error).__name__}: {error}"
        ) from error
