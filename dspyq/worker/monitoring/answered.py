"""An answer that waits in this process for its scores."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from dspyq.config.programs import Program
from dspyq.config.variants import Variant
from dspyq.core.runtime import DEFAULT, Runtime

#: An answer that has waited here for so long is left to Redis, which gives it to a worker with time.
_STALE_SECONDS = 45.0


class Answered(NamedTuple):
    """An answer to score.

    Attributes:
        program: Its program, as its variant replaces parts of it.
        variant: Its variant.
        inputs: Its inputs.
        outputs: Its outputs.
        task_id: The task that answered, if an experiment waits for the scores; else empty.
        since: The monotonic second from which it waits here.
        runtime: The runtime of its job, which leads to the spine of its question.
    """

    program: Program
    variant: Variant
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    task_id: str = ""
    since: float = 0.0
    runtime: Runtime = DEFAULT

    @property
    def is_stale(self) -> bool:
        """Return True if another worker may score it by now."""
        return bool(self.task_id) and time.monotonic() - self.since > _STALE_SECONDS
