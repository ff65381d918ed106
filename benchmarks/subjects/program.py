"""The program that everybody's workers run, as bare DSPy: set up as its best user would for two hundred threads."""

from __future__ import annotations

import os

import dspy
from dspy import lm15
from dspy.clients.engines.lm15_engine import LM15Engine

_PROVIDER = "openai-chat"
_CONCURRENCY = int(os.environ["BENCHMARK_CONCURRENCY"])


def _configure() -> dspy.Module:
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    routing = lm15.RouterConfig(
        api_keys={_PROVIDER: "none"},
        base_urls={_PROVIDER: os.environ["BENCHMARK_MODEL_URL"]},
        max_connections=2 * _CONCURRENCY,  # DSPy's own 100 would make half of the threads fail
    )
    lm = dspy.LM(
        "openai/control",
        engine=LM15Engine(routing),
        cache=False,
        num_retries=0,
        max_tokens=1024,
    )
    dspy.configure(lm=lm, adapter=dspy.ChatAdapter(), disable_history=True)
    return dspy.Predict("question -> answer")


_program = _configure()


def answer(question: str) -> dict[str, str]:
    """Ask the model, from any thread."""
    return {"answer": _program(question=question).answer}
