"""Scoring hooks of a user's own."""

from __future__ import annotations

import os
import threading
from typing import Any


def is_brief(inputs: dict[str, Any], outputs: dict[str, Any]) -> float:
    """Return 1 for an answer of at most 20 characters."""
    del inputs
    return float(len(outputs["answer"]) <= 20)


def fails(inputs: dict[str, Any], outputs: dict[str, Any]) -> float:
    """Raise, and quote what it must not."""
    raise RuntimeError(f"{inputs} {outputs}")


def first_word(inputs: dict[str, Any]) -> str:
    """Return what a user wrote as a category: there is no end of those."""
    return str(inputs["question"].split()[0])


def halts(inputs: dict[str, Any], outputs: dict[str, Any]) -> float:
    """Never return, unless HALTS is ``no``: for a worker that is killed meanwhile."""
    del inputs, outputs
    if os.environ.get("HALTS") != "no":
        threading.Event().wait()
    return 1.0


def judged(inputs: dict[str, Any], outputs: dict[str, Any]) -> float:
    """Return what a model finds, by DSPy; the model is that of whoever calls this."""
    import dspy

    judge = dspy.Predict("question, answer -> grounded: float")
    return float(judge(question=inputs["question"], answer=outputs["answer"]).grounded)


def judged_elsewhere(inputs: dict[str, Any], outputs: dict[str, Any]) -> float:
    """Call a model of its own, past the one that it is given."""
    import dspy

    with dspy.context(lm=dspy.LM("openai/elsewhere", api_key="x", api_base="http://127.0.0.1:9")):
        return judged(inputs, outputs)


def prefers_brief(inputs: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> float:
    """Return 1 where the first answer is shorter, -1 where it is longer, 0 where neither is."""
    del inputs
    lengths = len(first["answer"]), len(second["answer"])
    return float((lengths[0] < lengths[1]) - (lengths[0] > lengths[1]))


def favours_the_first(inputs: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> float:
    """Prefer whatever comes first, as some judges do."""
    del inputs, first, second
    return 1.0


def exaggerates(inputs: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> float:
    """Return what no pair scorer may."""
    del inputs, first, second
    return 7.0
