"""The ledger of the prediction that runs in this thread, which DSPy hands on to the threads of a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy

from dspyq.core.events import NO_CONTEXT
from dspyq.guards.ledger import Ledger, UnaccountedCall

#: The setting of ``dspy.context`` that holds the running prediction's ledger. DSPy copies its settings into the
#: threads of ``dspy.Parallel``, ``asyncify`` and async calls; a context variable of our own is lost in the first.
LEDGER_SETTING = "dspyq_ledger"


def running_log_context() -> Mapping[str, Any]:
    """Return the log context of the prediction that runs in this thread, if DSPy copied its settings into it."""
    ledger = running_ledger()
    return NO_CONTEXT if ledger is None else ledger.log_context


def running_ledger() -> Ledger | None:
    """Return the ledger of the prediction that runs in this thread; None if none runs."""
    ledger: Ledger | None = dspy.settings.get(LEDGER_SETTING)
    return ledger


def ledger_of_call() -> Ledger:
    """Return the ledger of a model call's prediction.

    Raises:
        UnaccountedCall: If none runs in this thread.
    """
    ledger = running_ledger()
    if ledger is None:
        raise UnaccountedCall(
            "a model was called outside of its prediction; start threads with dspy.Parallel, or run what they do in "
            "contextvars.copy_context()"
        )
    return ledger
