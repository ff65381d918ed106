"""Models that a program makes while it runs: a call of one is refused before a byte is sent.

It would bypass breaker, rate limit, budget and books. Models that a program holds when it is built are found at start
(``dspyq.programs.own_models``). Calls outside of a run, as in ``dspy.Evaluate`` in the same process, are left alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import dspy
from dspy.clients import execution, typesafe

from dspyq.errors import UnguardedModel
from dspyq.guards.interruptions import FailPrediction
from dspyq.guards.ledger import Ledger
from dspyq.programs.engine import Engine

#: The setting of ``dspy.context`` that holds the ledger of a run within which such models are refused.
REFUSING_SETTING = "dspyq_refuses_foreign_models"

#: Each call of a ``dspy.BaseLM`` goes through the first, one of ``dspy.experimental.TypeSafe`` through the second.
HOOKS = ((execution, "prepare"), (typesafe.TypeSafe, "_request"))


def refuse_foreign_models() -> None:
    """Patch DSPy to refuse calls of models outside ``[models]`` within runs of this process."""
    for owner, name in HOOKS:
        before = getattr(owner, name)
        if not hasattr(before, "__wrapped__"):
            setattr(owner, name, _refusing(before))


def _refusing(before: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(before)
    def checked(model: Any, *args: Any, **kwargs: Any) -> Any:
        ledger: Ledger | None = dspy.settings.get(REFUSING_SETTING)
        if ledger is not None and not isinstance(getattr(model, "_engine_spec", None), Engine):
            raise ledger.interrupt(
                FailPrediction(UnguardedModel(_message(model, ledger.job.program if ledger.job else None)))
            )
        return before(model, *args, **kwargs)

    return checked


def _message(model: Any, program: str | None) -> str:
    return (
        f"the program called {type(model).__name__} {getattr(model, 'model', '?')}, a model of its own, past the "
        "guards, and nothing was sent; hold it in a predictor or an attribute, and name what it runs on in "
        f"[programs.{program or '<name>'}.models]"
    )
