"""``dspyq serve``: the HTTP door."""

from __future__ import annotations

import os
from typing import Annotated

import typer


def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen at; by default serve.host.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="The port; by default serve.port.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Server processes; by default serve.workers.")] = None,
    root_path: Annotated[
        str | None, typer.Option(help="The path under which a proxy serves it; by default serve.root_path.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check whether it could start, and end.")] = False,
) -> None:
    """Serve the programs over HTTP, to any client.

    Metrics, liveness and readiness of all processes are at serve.metrics_port. SIGTERM and Ctrl-C end it: requests that
    wait are answered with the place where their answer will be.

    Examples: `dspyq serve`; `dspyq serve --host 0.0.0.0 --port 8000 --workers 4`
    """
    from dspyq.config.settings import get_settings
    from dspyq.core.runtime import current
    from dspyq.errors import ConfigurationError

    stated = {"HOST": host, "PORT": port, "WORKERS": workers, "ROOT_PATH": root_path}
    os.environ |= {f"DSPYQ_SERVE__{name}": str(value) for name, value in stated.items() if value is not None}
    current().forget(get_settings)
    try:
        from dspyq.serve.process.command import check_server, run_server
    except ImportError as error:
        raise ConfigurationError(f"dspyq serve needs {error.name}: pip install 'dspyq[serve]'") from error
    if check:
        return check_server()
    return run_server()
