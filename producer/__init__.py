"""The reference application's producers: ``from producer import predict``."""

import os
from pathlib import Path

from dspyq import Metadata, Prediction, Usage, predict

__all__ = ["Metadata", "Prediction", "Usage", "predict"]

# A producer is also started by cron, in whatever directory; the configuration is read at the first call.
os.environ.setdefault("DSPYQ_CONFIG", str(Path(__file__).parents[1] / "config" / "dspyq.toml"))
