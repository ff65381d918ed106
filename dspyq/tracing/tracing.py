"""Tracing, if ``[tracing]`` turns it on. Otherwise OpenTelemetry is not even imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspyq.config.settings import get_settings
from dspyq.core.runtime import per_runtime
from dspyq.errors import ConfigurationError

if TYPE_CHECKING:
    from dspyq.tracing.spans import Tracing

_CLOSE_SECONDS = 2.0


def _renew(tracing: Tracing) -> None:
    tracing.renew()


def _close(tracing: Tracing) -> None:
    tracing.close(_CLOSE_SECONDS)


@per_runtime(renew=_renew, close=_close)
def process_tracing() -> Tracing | None:
    """Return this process's tracing, or None where it is off.

    Raises:
        ConfigurationError: If it is on, and OpenTelemetry is not installed.
    """
    settings = get_settings()
    if not settings.tracing.is_on:
        return None
    try:
        from dspyq.tracing.spans import Tracing  # noqa: PLC0415 - costs an import what only tracing needs
    except ImportError as error:
        raise ConfigurationError(
            f"tracing: OpenTelemetry is not installed ({error.name}): pip install 'dspyq[tracing]'"
        ) from None
    return Tracing(settings)
