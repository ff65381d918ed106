"""The settings that the parent needs, read in a process of their own: pydantic alone takes more memory than the parent.

``python -m dspyq.processes.probe APP`` prints them as JSON, or a line for each fault of the configuration.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from pathlib import Path
from typing import NamedTuple


class ParentSettings(NamedTuple):
    """Settings of the parent.

    Attributes:
        port: ``metrics.port``; None for no pages.
        address: ``metrics.address``.
        grace_seconds: ``delivery.shutdown_grace_seconds``.
        log_format: ``logging.format``.
    """

    port: int | None
    address: str
    grace_seconds: float
    log_format: str


def main() -> None:
    """Print the settings."""
    from dspyq.config.secrets import scrub
    from dspyq.config.settings import get_settings, require_configuration
    from dspyq.core.visible import visible_line
    from dspyq.errors import ConfigurationError

    sys.path.insert(0, str(Path.cwd()))
    with contextlib.suppress(Exception):  # where it does not import, the workers show why
        importlib.import_module(sys.argv[1].partition(":")[0])  # it may name the configuration
    try:
        require_configuration()
        settings = get_settings()
    except ConfigurationError as error:
        for fault in error.faults:
            print(f"dspyq: {visible_line(scrub(fault))}", file=sys.stderr)
        sys.exit(1)
    metrics, grace_seconds = settings.metrics, settings.delivery.shutdown_grace_seconds
    print(json.dumps(ParentSettings(metrics.port, metrics.address, grace_seconds, settings.logging.format)))


if __name__ == "__main__":
    main()
