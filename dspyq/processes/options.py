"""Options of ``dspyq worker``; those of ``celery worker`` are passed on as they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dspyq.errors import ConfigurationError

DEFAULT_APP = "dspyq"
_DEFAULT_NAME = "worker"
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_QUOTA_OF_VERSION_1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
_PERIOD_OF_VERSION_1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
#: The options with a value that are ours, by all of their names.
_OURS = {
    "--processes": "processes",
    "--threads": "threads",
    "-A": "app",
    "--app": "app",
    "-n": "hostname",
    "--hostname": "hostname",
}
_CONCURRENCY = ("-c", "--concurrency")
_DETACHED = ("-D", "--detach")


@dataclass(frozen=True)
class ProcessOptions:
    """The workers to start.

    Attributes:
        processes: Number of workers.
        threads: Number of predictions at once in each; None for ``workers.concurrency``.
        app: The Celery application, as ``celery -A`` takes it.
        hostname: The workers' names, as ``celery worker -n`` takes them; a number is put before the ``@``.
        passed_on: Options of ``celery worker``.
    """

    processes: int
    threads: int | None
    app: str
    hostname: str
    passed_on: tuple[str, ...]

    def name(self, number: int) -> str:
        """Return the name of a worker, without its host."""
        return f"{self.hostname.partition('@')[0]}-{number}"

    def command(self, number: int, python: str) -> list[str]:
        """Return the command of a worker.

        Args:
            number: Its number, from 1.
            python: The interpreter.
        """
        host = self.hostname.partition("@")[2] or "%h"
        node = ("-n", f"{self.name(number)}@{host}")
        threads = () if self.threads is None else ("-c", str(self.threads))
        return [python, "-P", "-m", "celery", "-A", self.app, "worker", *node, *threads, *self.passed_on]


def parse_options(arguments: Sequence[str]) -> ProcessOptions:
    """Read a command line.

    Raises:
        ConfigurationError: If an option of ours cannot be used.
    """
    found: dict[str, str] = {}
    passed_on: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        name, is_joined, value = argument.partition("=")
        if name in ("-A", "-n") or not argument.startswith("--"):  # Celery takes -Aname too
            name, is_joined, value = argument[:2], argument[2:], argument[2:]
        if name not in _OURS:
            passed_on.append(argument)
            continue
        if not is_joined:
            if not left:
                raise ConfigurationError(f"{argument}: a value is missing")
            value = left.pop(0)
        found[_OURS[name]] = value
    threads = _number(found, "threads")
    _check_passed_on(passed_on, states_threads=threads is not None)
    return ProcessOptions(
        processes=_number(found, "processes") or available_cores(),
        threads=threads,
        app=found.get("app", DEFAULT_APP),
        hostname=found.get("hostname", _DEFAULT_NAME),
        passed_on=tuple(passed_on),
    )


def available_cores() -> int:
    """Return the processors that this process may use, a container's limit included."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read_quota()
    return max(1, allowed if quota is None else min(allowed, round(quota)))


def _number(found: dict[str, str], name: str) -> int | None:
    if (text := found.get(name)) is None:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ConfigurationError(f"--{name}: {text!r} is not a number of 1 or more")
    return int(text)


def _check_passed_on(passed_on: Sequence[str], *, states_threads: bool) -> None:
    for argument in passed_on:
        if argument in _DETACHED:
            raise ConfigurationError(
                f"{argument}: dspyq worker stays in the foreground; run it under systemd, or with & in a shell"
            )
        if states_threads and argument.partition("=")[0] in _CONCURRENCY:
            raise ConfigurationError(
                f"{argument}: does not go with --threads, which is the same; leave one of them out"
            )


def _read_quota() -> float | None:
    """Return the processors of the control group; None where it has no limit."""
    try:
        quota, _, period = _QUOTA.read_text().partition(" ")
    except OSError:
        try:
            quota, period = _QUOTA_OF_VERSION_1.read_text(), _PERIOD_OF_VERSION_1.read_text()
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except ValueError:  # "max"
        return None
