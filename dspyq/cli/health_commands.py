"""``dspyq health``: health check of a container's worker."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from dspyq.console.output import JsonOption, print_json, print_text
from dspyq.errors import ConfigurationError, DspyqError

#: A server that listens at every address is called at the loopback address.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to


def health(
    url: Annotated[str | None, typer.Option(help="The worker's server, as it logs it when it starts.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port on this machine; else metrics.port.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.")] = 3.0,
    as_json: JsonOption = False,
) -> None:
    """Print a worker's health in one line; exit with 0 if it is healthy or degraded, else with 1.

    Example: `dspyq health --port 9100` or `dspyq health --url http://10.0.0.7:9100 --json`
    """
    report = _ask(_url(url, port), timeout)
    if as_json:
        print_json(report)
    else:
        troubled = [name for name, check in report["checks"].items() if check["status"] != "healthy"]
        print_text(": ".join((report["status"], ", ".join(troubled))) if troubled else report["status"])
    if report["status"] == "unhealthy":
        raise typer.Exit(1)


def _url(url: str | None, port: int | None) -> str:
    if url is not None:
        return url.rstrip("/").removesuffix("/health")
    from dspyq.config.settings import get_settings

    metrics = get_settings().metrics
    if port is None and not metrics.port:
        raise ConfigurationError(
            "metrics.port: not set, or 0 for any; use --port or --url, or set it so that a worker serves its health"
        )
    address = _EVERYWHERE.get(metrics.address, metrics.address)
    return f"http://{f'[{address}]' if ':' in address else address}:{port or metrics.port}"


def _ask(url: str, timeout_seconds: float) -> dict[str, Any]:
    """Return the worker's report.

    Raises:
        DspyqError: If there is none.
    """
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise DspyqError(f"--url: {url} is not of the form http://host:port")
    connection = HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_seconds)
    try:
        connection.request("GET", "/health")
        report: dict[str, Any] = json.loads(connection.getresponse().read())
        report["status"], report["checks"]["redis"]["status"]  # else it is something else's
    except (OSError, HTTPException) as error:
        raise DspyqError(f"no worker answers at {url}: {error}") from None
    except (ValueError, TypeError, KeyError):
        raise DspyqError(f"what answers at {url} is no worker's health") from None
    finally:
        connection.close()
    return report
