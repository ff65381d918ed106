"""Time that rows would take live, by the variants' past runs."""

from __future__ import annotations

from collections.abc import Sequence

from dspyq.batch.quotes.quote import threads_serving
from dspyq.cache.statistics import variant_statistics
from dspyq.config.programs import Program
from dspyq.config.variants import Variant

#: A run takes so long where none was measured yet.
_UNMEASURED_SECONDS = 5.0


def live_seconds(program: Program, variants: Sequence[Variant], rows: float) -> float:
    """Return how long rows would take if all their calls were live from now on.

    The mean duration of each variant's runs is shared out over the threads of the workers that serve it now, and kept
    within the models' rate limits.

    Args:
        program: The program.
        variants: The variants that answer the rows.
        rows: The number of rows that are left.
    """
    names = {variant.name for variant in variants}
    statistics = [one for one in variant_statistics() if one.program == program.name and one.variant in names]
    means = [one.mean_duration_seconds for one in statistics if one.mean_duration_seconds]
    threads = max(1, threads_serving({variant.queue for variant in variants}))
    seconds = max(means, default=_UNMEASURED_SECONDS) * -(-rows // threads)
    for variant in variants:
        if rate := variant.model.requests_per_second:
            seconds = max(seconds, rows / rate)
    return seconds
