"""Programs of the configuration, run in the caller's process on models of the caller's own."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias, TypeVar

import dspy
from pydantic import JsonValue

from dspyq.config.models import Model
from dspyq.config.programs import Program
from dspyq.config.variants import Variant
from dspyq.errors import ConfigurationError
from dspyq.guards.call_records import ProgramAnswer
from dspyq.programs.parts import build_parts
from dspyq.programs.runner import Runner

#: A model for all, or models by their name in ``[models]``.
Models: TypeAlias = "dspy.BaseLM | Mapping[str, dspy.BaseLM]"
_Result = TypeVar("_Result")


class InProcessPrograms:
    """Builds each program when it is first asked, and runs it as a worker does, without guards.

    Args:
        lm: The model that replaces all, or models by their name in ``[models]``; where left out, DSPy's configured
            one.
    """

    def __init__(self, lm: Models | None = None) -> None:
        self._lm = lm
        self._runners: dict[str, _RecordingRunner] = {}

    def run(self, program: Program, variant: Variant, inputs: Mapping[str, JsonValue]) -> ProgramAnswer:
        """Run a program. An async one also runs inside the caller's event loop, which it blocks.

        Raises:
            ConfigurationError: If it cannot be built, or has no model.
            DspyqError: If its prediction fails.
        """
        if (runner := self._runners.get(variant.queue)) is None:
            runner = self._runners[variant.queue] = self._build(program, variant)
        if runner.is_async and _is_loop_running():
            return _in_thread(lambda: runner.run(inputs))
        return runner.run(inputs)

    def _build(self, program: Program, variant: Variant) -> _RecordingRunner:
        own_lms = {path: self._find(model) for path, model in program.models.items()}
        module, adapter = build_parts(program, own_lms)
        return _RecordingRunner(program, module, self._find(variant.model), adapter)

    def _find(self, model: Model) -> dspy.BaseLM:
        lm = self._lm.get(model.name) if isinstance(self._lm, Mapping) else self._lm
        if (found := lm or dspy.settings.lm) is None:
            raise ConfigurationError(
                f"no model stands in for [models.{model.name}]: pass lm=, or call dspy.configure(lm=…)"
            )
        return found


class _RecordingRunner(Runner):
    """A runner for the user's own models, which keep their history for tests to inspect."""

    disables_history = False
    refuses_foreign_models = False


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_thread(call: Callable[[], _Result]) -> _Result:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(contextvars.copy_context().run, call).result()
