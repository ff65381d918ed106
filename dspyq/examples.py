"""Examples for DSPy's optimizers, from what experiments exported; needs the extra ``worker``."""

from __future__ import annotations

try:
    from dspyq.programs.examples import read
except ModuleNotFoundError as error:
    if error.name != "dspy":
        raise
    raise ModuleNotFoundError("dspyq.examples needs DSPy: install dspyq[worker]", name="dspy") from None

__all__ = ["read"]
