"""``dspyq serve --workers N``: several servers of one port under one parent, with one page of metrics.

``python -m dspyq.processes.servers OPTIONS`` runs it; the command line replaces itself with it, so that the parent has
nothing of the servers in memory.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from contextlib import suppress
from typing import NamedTuple

from dspyq.core.http_server import listen
from dspyq.errors import ConfigurationError, DspyqError
from dspyq.processes.output import WorkerOutput, is_terminal
from dspyq.processes.pages import ADDRESS, routes
from dspyq.processes.parent import Parent, check_ports, free_ports
from dspyq.processes.worker_process import WorkerProcess

#: Set for a server that shares its port with others.
SHARES_PORT = "_DSPYQ_SHARES_PORT"
_PAGES = ("/metrics", "/livez", "/readyz")


class ServerOptions(NamedTuple):
    """The servers to start.

    Attributes:
        host: The address of the API.
        port: Its port; 0 for any.
        processes: Number of servers.
        metrics_address: The address of the page of all of them.
        metrics_port: Its port; 0 for any.
        grace_seconds: How long they may take to end after SIGTERM.
        log_format: ``logging.format``.
    """

    host: str
    port: int
    processes: int
    metrics_address: str
    metrics_port: int
    grace_seconds: float
    log_format: str


def main() -> int:
    """Run servers, and return the exit status; a user's mistake is one line."""
    try:
        return run(ServerOptions(**json.loads(sys.argv[1])))
    except DspyqError as error:
        print(f"dspyq: {error}", file=sys.stderr)
        return 1


def run(options: ServerOptions) -> int:
    """Run servers until they are asked to end, and return the exit status.

    Raises:
        ConfigurationError: If a port cannot be listened at.
    """
    port = _free_port(options.host, options.port)
    for_people = is_terminal()
    names = [f"server-{number}" for number in range(1, options.processes + 1)]
    output = WorkerOutput(is_terminal=for_people, width=max(map(len, names)))
    ports = _ports_of_pages(options)
    command = [sys.executable, "-P", "-m", "dspyq", "serve", "--workers", "1", "--port", str(port)]
    variables = {SHARES_PORT: "1", "DSPYQ_METRICS__ADDRESS": ADDRESS}
    if for_people and options.log_format == "auto":
        variables["DSPYQ_LOGGING__FORMAT"] = "console"
    servers = [
        WorkerProcess(name, command, own, {**variables, "DSPYQ_SERVE__METRICS_PORT": str(own)})
        for name, own in zip(names, ports, strict=True)
    ]
    found = routes(servers, kind="server")
    pages = {path: found[path] for path in _PAGES}
    page = listen(options.metrics_address, options.metrics_port, pages, setting="serve.metrics_port")
    output.report("pages_served", f"metrics of all servers are served at {page.url}/metrics", url=page.url)
    return Parent(servers, output, options.grace_seconds, reloads=not (sys.stdin and sys.stdin.isatty())).run()


def replace_process(options: ServerOptions) -> None:
    """Become the parent of servers."""
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-P", "-m", "dspyq.processes.servers", json.dumps(options._asdict())]
    os.execv(sys.executable, command)  # noqa: S606 - a module of ours, in this interpreter


def _free_port(host: str, port: int) -> int:
    """Return the port that the servers will share, once no other process listens at it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            reason = os.strerror(error.errno or errno.EADDRNOTAVAIL)
            raise ConfigurationError(
                f"serve.port: cannot listen at {host}:{port}: {reason}; choose another with --port, and 0 picks a free "
                "one"
            ) from None
        found: int = probe.getsockname()[1]
        return found


def _ports_of_pages(options: ServerOptions) -> list[int]:
    """Return the ports of the servers' own pages: those that follow the parent's, or free ones where that is any."""
    if options.metrics_port == 0:
        return free_ports(options.processes)
    ports = [options.metrics_port + number for number in range(1, options.processes + 1)]
    check_ports(ports, setting="serve.metrics_port")
    return ports


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
