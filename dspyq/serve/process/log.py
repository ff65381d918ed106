"""The log of a server, on its standard error: a JSON line for each entry, or a line for people."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from dspyq.config.secrets import process_secrets
from dspyq.core.events import Event

if TYPE_CHECKING:
    from dspyq.config.schema import Settings


class _JsonFormatter(logging.Formatter):
    """Formats entries as workers do."""

    def format(self, record: logging.LogRecord) -> str:
        """Return an entry as a JSON line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry = {"timestamp": moment, "level": record.levelname.lower(), "logger": record.name}
        if isinstance(record.msg, Event):
            entry |= {"event": record.msg.name, **record.msg.fields}
        else:
            entry["event"] = record.getMessage()
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return process_secrets().scrub_line(orjson.dumps(entry, default=str).decode())


class _LineFormatter(logging.Formatter):
    """Formats entries for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return an entry as a line of text."""
        return process_secrets().scrub_line(super().format(record))


def is_for_people(settings: Settings) -> bool:
    """Return True if the log is written for people, not as JSON."""
    return settings.logging.format == "console" or (settings.logging.format == "auto" and sys.stderr.isatty())


def begin_log(settings: Settings) -> None:
    """Have this process's loggers write to its standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter() if is_for_people(settings) else _JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.logging.level)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
