"""Time that rows would take live, by the variants' past runs."""

from __future__ import annotations

from collections.abc import Sequence

from kombu.exceptions import OperationalError

from dspyq.batch.quotes.quote import threads_serving
from dspyq.cache.statistics import variant_statistics
from dspyq.config.programs import Program
from dspyq.config.settings import get_settings
from dspyq.config.variants import Variant

#: A run takes so long where none was measured yet.
_UNMEASURED_SECONDS = 5.0


def live_seconds(program: Program, variants: Sequence[Variant], rows: float) -> float:
    """Return how long rows would take if all their calls were live from now on.

    The mean duration of each variant's runs is shared out over the threads of the workers that serve it now, and kept
    within the models' rate limits. Where none serves it, one worker is assumed.

    Args:
        program: The program.
        variants: The variants that answer the rows.
        rows: The number of rows that are left.
    """
    names = {variant.name for variant in variants}
    statistics = [one for one in variant_statistics() if one.program == program.name and one.variant in names]
    means = [one.mean_duration_seconds for one in statistics if one.mean_duration_seconds]
    try:
        threads = threads_serving({variant.queue for variant in variants})
    except (OperationalError, OSError):  # of remote control
        threads = 0
    threads = threads or get_settings().workers.concurrency  # a worker that is about to start is as good as one
    seconds = max(means, default=_UNMEASURED_SECONDS) * -(-rows // threads)
    for variant in variants:
        if rate := variant.model.requests_per_second:
            seconds = max(seconds, rows / rate)
    return seconds
