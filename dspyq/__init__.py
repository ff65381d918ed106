"""DSPy programs as Celery jobs: ``from dspyq import predict``.

Importing this package reads no configuration and loads no DSPy; the names below are loaded when they are first used.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspyq.client.configured import Configured, configured
    from dspyq.client.predict import predict
    from dspyq.prediction.prediction import Metadata, Prediction, Usage

__all__ = ["Configured", "Metadata", "Prediction", "Usage", "configured", "predict"]

_HOMES = {
    "Configured": "dspyq.client.configured",
    "configured": "dspyq.client.configured",
    "Metadata": "dspyq.prediction.prediction",
    "Prediction": "dspyq.prediction.prediction",
    "Usage": "dspyq.prediction.prediction",
    "predict": "dspyq.client.predict",
}

# A library logs nothing by itself; its host configures logging.
logging.getLogger("dspyq").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562): commands and tools that need none stay quick."""
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only the first use of a name needs it

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
