"""The reference application's DSPy programs and workers: ``celery -A workers worker``."""

import os
from pathlib import Path

os.environ.setdefault("DSPYQ_CONFIG", str(Path(__file__).parents[1] / "config" / "dspyq.toml"))
