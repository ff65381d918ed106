"""The programs of the configuration, built once per process and run from any thread."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, TypeVar

import dspy
from dspy.predict import best_of_n, refine
from dspy.utils.exceptions import AdapterParseError
from pydantic import JsonValue

from dspyq.config.codec import Encoded, decode_inputs, encode_outputs, find_type_notes
from dspyq.config.programs import Program
from dspyq.config.secrets import scrub
from dspyq.config.settings import Settings
from dspyq.config.variants import Variant
from dspyq.core.depth import is_too_deep
from dspyq.errors import (
    ConfigurationError,
    InvalidOutputs,
    PredictionFailed,
    TransientPredictionFailure,
)
from dspyq.guards.call_records import ProgramAnswer
from dspyq.guards.ledger import Ledger
from dspyq.guards.model import Guards
from dspyq.programs import dspy_memo, dspy_shortcuts
from dspyq.programs.class_signature import derive_signature, forward_of, signature_notes
from dspyq.programs.dspy_bars import share_bars
from dspyq.programs.foreign_models import REFUSING_SETTING, refuse_foreign_models
from dspyq.programs.language_models import build_lm
from dspyq.programs.own_models import find_unmatched, model_paths
from dspyq.programs.parts import build_parts, module_of_class
from dspyq.programs.repair import readable_texts
from dspyq.programs.running_ledger import LEDGER_SETTING
from dspyq.programs.stream_follower import Follower
from dspyq.programs.stream_plan import REPEATING_MODULES, plan_stream

__all__ = ["Runner", "build_programs", "check_notes"]

logger = logging.getLogger("dspyq.programs")

_LONGEST_MESSAGE = 2000

_Argument = TypeVar("_Argument")
_Built = TypeVar("_Built")


class Runner:
    """One variant of a program, ready to run.

    Making one raises ``ConfigurationError`` if the program's setting ``stream`` names what it does not have.

    Attributes:
        is_async: Whether the program runs in an event loop, which the runner begins and ends.
        disables_history: Whether models keep no list of their calls: a worker's would grow without end.
        predictors: How many predictors its program has.
        refuses_foreign_models: Whether models are refused that the program makes while it runs.
    """

    disables_history = True
    refuses_foreign_models = True

    def __init__(
        self, program: Program, module: dspy.Module, lm: dspy.LM, adapter: dspy.Adapter, max_parse_attempts: int = 1
    ) -> None:
        self._max_parse_attempts = max_parse_attempts
        self._program = program
        self.is_async = not hasattr(type(module), "forward")
        parameters = inspect.signature(forward_of(module)).parameters
        self._left_out = {  # None, where the program's own code requires a value
            field.name: None
            for field in program.signature.inputs
            if field.may_be_left_out
            and field.name in parameters
            and parameters[field.name].default is inspect.Parameter.empty
        }
        self._module = module
        self._lm = lm
        self._adapter = adapter
        # Those change themselves while they run, so every run gets a copy. All others are shared by threads.
        self._keeps_state = any(isinstance(part, REPEATING_MODULES) for _, part in module.named_sub_modules())
        self._stream_plan = plan_stream(program, module)
        predictors = [part for _, part in module.named_sub_modules(dspy.Predict)]  # also compiled ones, unlike set_lm
        for predictor in predictors:
            predictor.lm = predictor.lm or lm
        self.predictors = len(predictors)

    def run(self, inputs: Mapping[str, JsonValue], ledger: Ledger | None = None) -> ProgramAnswer:
        """Run the program, from any thread.

        Args:
            inputs: Its input fields as JSON values.
            ledger: The ledger of its model calls; one without a job where left out.

        Raises:
            InvalidInputs: If they do not fit its signature.
            Interruption: If a guard or the deadline ended it, even if the program swallowed the interruption.
            PredictionFailed: If it raised or returned unfit outputs; holds the calls made until then.
        """
        arguments = self._left_out | decode_inputs(self._program, inputs)
        ledger = ledger or Ledger()
        try:
            encoded = self._outputs(self._call_until_parsed(arguments, ledger))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a program may raise anything
            if ledger.interruption is not None:
                raise ledger.interruption from None
            failure = error if isinstance(error, PredictionFailed) else _failure(error)
            failure.calls = ledger.calls
            raise failure from (None if failure is error else error)
        finally:
            ledger.close()
        if ledger.interruption is not None:  # the program swallowed it: its answer is a worse one
            raise ledger.interruption
        return ProgramAnswer(encoded.plain, ledger.calls, encoded.exact)

    @property
    def model_paths(self) -> set[str]:
        """The paths of its parts that may have a model of their own."""
        return model_paths(self._module, self._adapter)

    def close(self) -> None:
        """Close the connections of the variant's model, other variants' too. Not to be used again."""
        self._lm.engine.close()

    def _call_until_parsed(self, arguments: dict[str, Any], ledger: Ledger) -> Any:
        """Run the program again if its latest reply could not be parsed; earlier replies are replayed."""
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
            "disable_history": self.disables_history,
            "warn_on_type_mismatch": False,  # the inputs have just been checked
            LEDGER_SETTING: ledger,
            REFUSING_SETTING: ledger if self.refuses_foreign_models else None,
        }
        if ledger.tap is not None:
            settings["callbacks"] = [
                *(dspy.settings.get("callbacks") or ()), Follower(ledger.tap, self._stream_plan, module),
            ]  # fmt: skip
        with dspy.context(**settings):
            if self.is_async:
                return asyncio.run(module.acall(**arguments))
            return module(**arguments)

    def _outputs(self, returned: Any) -> Encoded:
        if not isinstance(returned, dspy.Example | Mapping):
            raise InvalidOutputs(f"{self._program.name} returned a {type(returned).__name__}, not a dspy.Prediction")
        outputs = dict(returned.items())
        return encode_outputs(self._program, outputs if is_too_deep(outputs) else readable_texts(outputs))


def build_programs(
    settings: Settings, queues: Container[str] | None = None, guards: Guards | None = None
) -> dict[tuple[str, str], Runner]:
    """Build every variant that is served, without network access.

    Args:
        settings: The configuration.
        queues: The names of the queues that are served; all where left out.
        guards: The guards of their models; none where left out.

    Returns:
        The runners by program and variant name.

    Raises:
        ConfigurationError: With every fault.
    """
    installed, stated = dspy.__version__, settings.dspy_version
    if installed != stated:
        raise ConfigurationError(
            f"dspy {installed} is installed, but dspy_version is {stated}: pip install dspy=={stated}, or set "
            f'dspy_version = "{installed}" in the configuration file of producers and workers (answers cached under '
            f"{stated} are then not served)"
        )
    _silence(include_content=settings.logging.include_content)
    dspy_memo.cache_type_adapters()
    dspy_memo.cache_fields()
    dspy_shortcuts.take_shortcuts()
    share_bars()
    refuse_foreign_models()
    # The keys of DSPy's cache omit the endpoint, and it would replay a reply that did not parse.
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    faults: list[str] = []

    def collecting(build: Callable[[_Argument], _Built], argument: _Argument) -> _Built | None:
        try:
            return build(argument)
        except ConfigurationError as error:
            faults.extend(error.faults)
            return None

    collecting(_complete_signatures, settings)
    served = [(program, variant) for program, variant in _served(settings, queues) if not program.unstated]
    models = [model for program, variant in served for model in (variant.model, *program.models.values())]
    lms = {model.distinction: model for model in models}
    built_lms = {of: collecting(lambda model: build_lm(model, guards), model) for of, model in lms.items()}
    runners = {}
    for program, variant in served:
        own = {path: built_lms[model.distinction] for path, model in program.models.items()}
        own_lms = {path: lm for path, lm in own.items() if lm is not None}
        parts = collecting(functools.partial(build_parts, own_lms=own_lms), program)
        lm = built_lms[variant.model.distinction]
        if parts is not None and lm is not None:
            module, adapter = parts
            attempts = settings.retry.max_parse_attempts if guards else 1
            make = functools.partial(Runner, module=module, lm=lm, adapter=adapter, max_parse_attempts=attempts)
            if (runner := collecting(make, program)) is not None:
                runners[program.name, variant.name] = runner
    faults.extend(_models_of_no_variant(settings, runners))
    if faults:
        raise ConfigurationError(dict.fromkeys(faults))
    return runners


def _models_of_no_variant(settings: Settings, runners: Mapping[tuple[str, str], Runner]) -> Iterator[str]:
    """Yield a fault for each key of ``[programs.<name>.models]`` that no variant has a part for, if all are built."""
    for program in settings.programs.values():
        built = [runners.get((program.name, variant)) for variant in program.variants]
        if program.models and not program.has_one_structure and None not in built:
            paths = {path for runner in built if runner is not None for path in runner.model_paths}
            for name in find_unmatched(program.models, paths):
                yield f"programs.{program.name}.models.{name}: no variant has a predictor or a model of this path"


def _complete_signatures(settings: Settings) -> None:
    """Derive each signature that is left out from its class, also of programs that are not served here.

    Raises:
        ConfigurationError: With each one that cannot be derived.
    """
    faults: list[str] = []
    for program in settings.programs.values():
        if program.unstated:
            try:
                program.complete(derive_signature(program, module_of_class(program)))
            except ConfigurationError as error:
                faults.extend(error.faults)
    if faults:
        raise ConfigurationError(faults)


def check_notes(settings: Settings) -> list[str]:
    """Return warnings about built programs: lines that producers lack, values that JSON cannot carry."""
    notes: list[str] = []
    for program in (served for stated in settings.programs.values() for served in stated.served.values()):
        if program.class_path:
            notes += signature_notes(program, module_of_class(program))
        notes += find_type_notes(program)
    return list(dict.fromkeys(notes))


def _served(settings: Settings, queues: Container[str] | None) -> Iterator[tuple[Program, Variant]]:
    for program in settings.programs.values():
        served = [variant for variant in program.variants.values() if queues is None or variant.queue in queues]
        others = [program.fallback_variant or ""]
        if program.experiment and any(variant.name in program.experiment.arms for variant in served):
            others.append(program.experiment.control)  # it answers the jobs of an arm that is killed
        for fallback in map(program.variants.get, others):
            if served and fallback is not None and fallback not in served:
                served.append(fallback)
        yield from ((program.served[variant.name], variant) for variant in served)


def _silence(*, include_content: bool) -> None:
    """Keep DSPy from writing to standard output and error, and logs without inputs and replies."""
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
    """Return an error of ours for an exception that a producer may not have and Celery cannot rebuild."""
    try:
        text = scrub(" ".join(str(error).split()))  # before it is cut: a part of a secret would not be found
    except Exception:  # noqa: BLE001 - a user's own exception may fail in __str__
        text = "(its message cannot be read)"
    message = f"{type(error).__name__}: {text}"[:_LONGEST_MESSAGE]
    if not isinstance(error, Exception) or not dspy.is_retryable_lm_error(error):
        return PredictionFailed(message)
    failure = TransientPredictionFailure(message)
    failure.retry_after_seconds = getattr(error, "retry_after", None)
    return failure
