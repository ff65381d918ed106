"""``dspyq worker``: several workers by one command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from dspyq.core.http_server import listen
from dspyq.errors import ConfigurationError, DspyqError
from dspyq.processes.options import ProcessOptions, parse_options
from dspyq.processes.output import WorkerOutput, is_terminal
from dspyq.processes.pages import ADDRESS, routes
from dspyq.processes.parent import Parent, check_ports, free_ports
from dspyq.processes.probe import ParentSettings
from dspyq.processes.worker_process import WorkerProcess


def main(arguments: Sequence[str]) -> int:
    """Run workers, and return the exit status; a user's mistake is one line."""
    try:
        return run(parse_options(arguments))
    except DspyqError as error:
        for fault in error.faults if isinstance(error, ConfigurationError) else (str(error),):
            print(f"dspyq: {fault}", file=sys.stderr)
        return 1


def run(options: ProcessOptions) -> int:
    """Run workers until they are asked to end, and return the exit status.

    Raises:
        ConfigurationError: If a port cannot be listened at.
    """
    settings = _read_settings(options.app)
    if settings is None:
        return 1
    for_people = is_terminal()
    names = [options.name(number) for number in range(1, options.processes + 1)]
    output = WorkerOutput(is_terminal=for_people, width=max(map(len, names)))
    ports = _ports(settings, options.processes)
    variables = {"DSPYQ_LOGGING__FORMAT": "console"} if for_people and settings.log_format == "auto" else {}
    workers = []
    for number, (name, port) in enumerate(zip(names, ports, strict=True), start=1):
        pages = {} if port is None else {"DSPYQ_METRICS__PORT": str(port), "DSPYQ_METRICS__ADDRESS": ADDRESS}
        command = options.command(number, sys.executable)
        workers.append(WorkerProcess(name, command, port, {**variables, **pages}))
    if settings.port is not None:
        server = listen(settings.address, settings.port, routes(workers), setting="metrics.port")
        text = f"metrics of all workers are served at {server.url}/metrics and health at {server.url}/health"
        output.report("pages_served", text, url=server.url)
    return Parent(workers, output, settings.grace_seconds, reloads=not (sys.stdin and sys.stdin.isatty())).run()


def _read_settings(app: str) -> ParentSettings | None:
    """Return the settings; None where the configuration is refused, which the other process has printed."""
    probe = [sys.executable, "-m", "dspyq.processes.probe", app]
    done = subprocess.run(probe, stdout=subprocess.PIPE, check=False)  # noqa: S603 - a module of ours
    if done.returncode:
        return None
    port, address, grace_seconds, log_format = json.loads(done.stdout.splitlines()[-1])
    return ParentSettings(port, address, grace_seconds, log_format)


def _ports(settings: ParentSettings, processes: int) -> Sequence[int | None]:
    """Return the ports of the workers' own pages: those that follow the parent's, or free ones where that is any."""
    if settings.port is None:
        return [None] * processes
    if settings.port == 0:
        return free_ports(processes)
    ports = [settings.port + number for number in range(1, processes + 1)]
    check_ports(ports)
    return ports
