"""Configurations with an experiment over the two variants of ``qa``."""

from __future__ import annotations

from typing import Any

#: As of ``[programs.qa.experiment]``: two arms, all units, no score.
TABLE: dict[str, Any] = {
    "name": "first",
    "arms": ["control", "challenger"],
    "primary": "answer.cost",
    "minimum_effect": "5 %",
    "guards": [{"metric": "call.failed", "margin": 0.05}],
}


def with_experiment(**changes: Any) -> dict[str, Any]:
    """Return the changes of a configuration that state an experiment."""
    return {"programs": {"qa": {"experiment": TABLE | changes}}}
