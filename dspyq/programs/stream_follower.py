"""Follows a streamed run through DSPy's callbacks: the predictor that runs, the notation of its reply, the tools."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.adapters.base import Adapter
from dspy.utils.callback import BaseCallback

from dspyq.programs.own_models import predictor_paths
from dspyq.programs.reply_fields.chat import ChatFields
from dspyq.programs.reply_fields.json_object import JsonFields
from dspyq.programs.reply_fields.xml import XmlFields
from dspyq.programs.stream_plan import StreamPlan
from dspyq.programs.tap import MakeSplitter, Tap

_NO_FIELDS: frozenset[str] = frozenset()


@dataclass(slots=True)
class Speech:
    """The call of a predictor that runs in this context.

    Attributes:
        tap: The run's stream.
        fields: The fields of its reply that are streamed.
        make_splitter: Makes the splitter of its reply; None where that is in no notation that can be split.
    """

    tap: Tap
    fields: frozenset[str]
    make_splitter: MakeSplitter | None = None


_speech: ContextVar[Speech | None] = ContextVar("speech", default=None)


def running_speech() -> Speech | None:
    """Return the predictor's call that runs in this context; None where none does, or its run is not streamed."""
    return _speech.get()


class Follower(BaseCallback):  # type: ignore[misc]  # dspy ships no types
    """Callback of DSPy for one run.

    Args:
        tap: The run's stream.
        plan: The streamed fields.
        module: The program as this run has it; copies of its predictors are not followed.
    """

    def __init__(self, tap: Tap, plan: StreamPlan, module: dspy.Module) -> None:
        self._tap = tap
        self._fields = {id(part): plan.fields.get(path, _NO_FIELDS) for path, part in predictor_paths(module).items()}
        self._before: dict[str, Speech | None] = {}
        if plan.reason:
            tap.status_once("stream", plan.reason)

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Begin the call of a predictor."""
        del inputs
        if isinstance(instance, dspy.Predict):
            self._before[call_id] = _speech.get()
            _speech.set(Speech(self._tap, self._fields.get(id(instance), _NO_FIELDS)))

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """End the call of a predictor."""
        del outputs, exception
        if call_id in self._before:
            _speech.set(self._before.pop(call_id))

    def on_adapter_format_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Choose the splitter; another adapter may take over within the same call."""
        del call_id, inputs
        speech = _speech.get()
        if speech is None or speech.tap is not self._tap:
            return
        speech.make_splitter = _splitter_of(instance)
        if speech.fields and speech.make_splitter is None:
            self._tap.status_once("stream", f"replies to {type(instance).__name__} come in one piece")

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Add the name of a tool that is called; never what it is called with."""
        del call_id, inputs
        self._tap.status("tool", str(instance.name))


def _splitter_of(adapter: Adapter) -> MakeSplitter | None:
    """Return what splits replies as an adapter reads them; None for one that reads them in a way of its own."""
    return _SPLITTERS.get(inspect.unwrap(type(adapter).parse))


_SPLITTERS: Mapping[Any, MakeSplitter] = {
    inspect.unwrap(dspy.ChatAdapter.parse): ChatFields,
    inspect.unwrap(dspy.JSONAdapter.parse): JsonFields,
    inspect.unwrap(dspy.XMLAdapter.parse): XmlFields,
}
