"""The number of examples of property tests: few in ``make test``, more in ``make chaos``, very many on request.

``make test`` is derandomized: a red run is about the change under test and repeats on any machine. ``make chaos`` runs
the tests marked ``property`` with ``HYPOTHESIS_PROFILE=long``; ``HYPOTHESIS_PROFILE=chaos`` tries many more, at random.
The blob it prints, and the example database, repeat a finding.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_EXAMPLES_AND_STEPS = {"default": (40, 50), "long": (100, 50), "chaos": (2000, 80)}


def examples(few: int, many: int) -> int:
    """Return the number of examples of a property: ``few`` in ``make test``, else ``many``."""
    return few if _profile() == "default" else many


def stateful_settings() -> settings:
    """Return the settings of a state machine's run, as the environment's ``HYPOTHESIS_PROFILE`` wants it."""
    profile = _profile()
    count, steps = _EXAMPLES_AND_STEPS[profile]
    return settings(
        max_examples=count,
        stateful_step_count=steps,
        derandomize=profile != "chaos",
        deadline=None,  # time decides no test
        print_blob=True,
        suppress_health_check=list(HealthCheck),  # preconditions filter much, and real round trips are slow
    )


def _profile() -> str:
    return os.environ.get("HYPOTHESIS_PROFILE", "default")
