"""One process of ``dspyq serve``."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from dspyq.client.metrics import metrics_page
from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.core.http_server import Response, Route
from dspyq.core.http_server import listen as listen_for_pages
from dspyq.core.process_tuning import share_heaps
from dspyq.processes.servers import SHARES_PORT, ServerOptions, replace_process
from dspyq.serve.callers import choose_openness
from dspyq.serve.door import Door
from dspyq.serve.process.log import begin_log
from dspyq.serve.process.metrics import register_door
from dspyq.serve.process.server import DoorServer, listen
from dspyq.store.clients import money_client, redis_errors
from dspyq.store.content import process_codec
from dspyq.tracing.tracing import process_tracing
from dspyq.worker.parent import end_with_parent

if TYPE_CHECKING:
    from dspyq.config.schema import Settings

logger = logging.getLogger("dspyq.serve")

#: Spans that wait have so long to be exported at the end.
_EXPORT_SECONDS = 1.0


def run_server() -> None:
    """Serve until the process is asked to end.

    Raises:
        ConfigurationError: If it cannot listen, or would be open to everyone without anyone's having said so.
    """
    settings = get_settings()
    serve = settings.serve
    if serve.workers > 1:
        _run_several(settings)
    end_with_parent()
    share_heaps()
    begin_log(settings)
    process_codec()  # refuses keys that cannot be read
    with redis_errors("start the server"):
        money_client().ping()
    openness = choose_openness(settings, serve.host)
    listener = listen(serve.host, serve.port, is_shared=SHARES_PORT in os.environ)
    host = f"[{serve.host}]" if ":" in serve.host else serve.host
    server = DoorServer(Door(openness), f"http://{host}:{listener.getsockname()[1]}{serve.root_path}")
    pages = listen_for_pages(settings.metrics.address, serve.metrics_port, _pages(server), setting="serve.metrics_port")
    logger.warning(Event("pages_served", url=pages.url))
    if openness != "keys":
        logger.warning(Event("server_without_keys", open_to=openness))
    server.run(sockets=[listener])
    if (tracing := process_tracing()) is not None:
        tracing.close(_EXPORT_SECONDS)


def _run_several(settings: Settings) -> None:
    """Become the parent of several servers, once one could start."""
    serve, metrics = settings.serve, settings.metrics
    choose_openness(settings, serve.host)
    replace_process(
        ServerOptions(
            host=serve.host,
            port=serve.port,
            processes=serve.workers,
            metrics_address=metrics.address,
            metrics_port=serve.metrics_port,
            grace_seconds=serve.drain_seconds,
            log_format=settings.logging.format,
        )
    )


def check_server() -> None:
    """Check whether a server could start, and print what it would do.

    Raises:
        ConfigurationError: If it could not.
    """
    from dspyq.console.output import print_text  # noqa: PLC0415 - a server prints nothing, and this loads rich

    settings = get_settings()
    serve = settings.serve
    openness = choose_openness(settings, serve.host)
    process_codec()
    listen(serve.host, serve.port, is_shared=False).close()
    print_text(f"dspyq serve can start: {serve.host}:{serve.port}, {serve.workers} process(es), open to {openness}")


def _pages(server: DoorServer) -> dict[str, Route]:
    register_door(server.door, server.counts, server.server_state.connections)
    return {
        "/metrics": metrics_page,
        "/livez": lambda _: _probe(is_good=server.is_alive, good="alive"),
        "/readyz": lambda _: _probe(is_good=server.is_ready, good="ready"),
    }


def _probe(*, is_good: bool, good: str) -> Response:
    return Response(f"{good}\n".encode() if is_good else f"not {good}\n".encode(), status=200 if is_good else 503)
