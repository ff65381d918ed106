"""Makes a worker one of a version that has no tenants and hands back their jobs: named in ``workers.imports``."""

from __future__ import annotations

from dspyq.worker import versions

versions.KNOWN_NEEDS -= {"tenant"}
