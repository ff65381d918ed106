"""Has a worker give up the results of a batch that it cannot read after a second.

Named in ``workers.imports``.
"""

from __future__ import annotations

from dspyq.lane import runner

runner._RESULTS_MISSING_SECONDS = runner._RESULTS_LATE_SECONDS = 1.0  # noqa: SLF001 - no setting states it
