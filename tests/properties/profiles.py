"""How long property tests look: the same examples at each run of the suite, new and many more for ``make chaos``.

``make test`` is derandomized: a red run is about the change under test and repeats on any machine. What it misses is
looked for by ``HYPOTHESIS_PROFILE=chaos``, at random; the blob it prints, and the example database, repeat a finding.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_EXAMPLES_AND_STEPS = {"default": (100, 50), "chaos": (2000, 80)}


def stateful_settings() -> settings:
    """Return the settings of a state machine's run, as the environment's ``HYPOTHESIS_PROFILE`` wants it."""
    profile = os.environ.get("HYPOTHESIS_PROFILE", "default")
    examples, steps = _EXAMPLES_AND_STEPS[profile]
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=profile == "default",
        deadline=None,  # time decides no test
        print_blob=True,
        suppress_health_check=list(HealthCheck),  # preconditions filter much, and real round trips are slow
    )
