"""The variant that answers the jobs of a killed arm."""

from __future__ import annotations

from dspyq.config.programs import Program
from dspyq.errors import ExperimentRefused
from dspyq.experiments.administration import read_state


def served_instead(program: Program) -> str | None:
    """Return the variant that units of a killed arm get: the state's, else the file's control; None without either.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    try:
        state = read_state(program.name)
    except ExperimentRefused:
        state = None
    if state is not None:
        return state.serve
    return program.experiment.control if program.experiment else None
