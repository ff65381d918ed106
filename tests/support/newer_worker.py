"""Makes a worker one of a later version, which can do what jobs may need then: named in ``workers.imports``."""

from __future__ import annotations

from dspyq.worker import versions

versions.KNOWN_NEEDS = frozenset({"more"})
