"""One page of metrics and one of health for several workers, made of their own pages when it is asked for."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from dspyq.core.http_server import Response
from dspyq.processes.exposition import CONTENT_TYPE, LABEL, merge_pages

ADDRESS = "127.0.0.1"
#: A worker that does not answer within this counts as unhealthy, and its metrics are left out.
_TIMEOUT_SECONDS = 2.0
_UNKNOWN = {"status": "unhealthy", "checks": {}}


class PagedWorker(Protocol):
    """A worker as the pages see it."""

    name: str
    port: int | None
    is_ready: bool
    starts: int

    @property
    def is_running(self) -> bool:
        """Return whether it has a process."""


class _WorkerPage(NamedTuple):
    status: int
    body: bytes


def routes(workers: Sequence[PagedWorker], *, kind: str = "worker") -> dict[str, Callable[[str], Response]]:
    """Return the pages, by their paths.

    Args:
        workers: The workers.
        kind: What the metrics of the processes themselves call one of them.
    """
    return {
        "/metrics": lambda _: _metrics(workers, kind),
        "/health": lambda _: _health(workers),
        "/readyz": lambda _: _probe(workers, "/readyz", "ready"),
        # What has not been ready yet is about to be, or the parent starts it again: a new parent would do no better.
        "/livez": lambda _: _probe([worker for worker in workers if worker.is_ready], "/livez", "alive"),
    }


def _metrics(workers: Sequence[PagedWorker], kind: str) -> Response:
    pages = _ask_all(workers, "/metrics")
    texts = [(name, page.body.decode(errors="replace")) for name, page in pages.items() if page.status == HTTPStatus.OK]
    lines = [
        f"# HELP dspy_{kind}_up Whether this {kind} runs and answered this scrape.",
        f"# TYPE dspy_{kind}_up gauge",
        *(f'dspy_{kind}_up{{{LABEL}="{worker.name}"}} {int(worker.name in dict(texts))}' for worker in workers),
        f"# HELP dspy_{kind}_restarts_total How often this {kind} was started again.",
        f"# TYPE dspy_{kind}_restarts_total counter",
        *(f'dspy_{kind}_restarts_total{{{LABEL}="{each.name}"}} {max(0, each.starts - 1)}' for each in workers),
    ]
    return Response((merge_pages(texts) + "\n".join(lines) + "\n").encode(), CONTENT_TYPE)


def _health(workers: Sequence[PagedWorker]) -> Response:
    pages = _ask_all(workers, "/health")
    reports = {worker.name: _report(pages.get(worker.name)) for worker in workers}
    running = sum(worker.is_running for worker in workers)
    checks: dict[str, dict[str, Any]] = {
        name: _merged([report["checks"].get(name) for report in reports.values()]) for name in _names(reports)
    }
    status = _together([report["status"] for report in reports.values()])
    checks["processes"] = {
        "status": _together(["healthy" if worker.is_running else "unhealthy" for worker in workers]),
        "running": running,
        "configured": len(workers),
        "restarts": sum(max(0, worker.starts - 1) for worker in workers),
    }
    body = json.dumps({"status": status, "checks": checks, "workers": reports}).encode()
    return Response(body, "application/json", _http_status(is_good=status != "unhealthy"))


def _probe(workers: Sequence[PagedWorker], path: str, good: str) -> Response:
    """Answer as a worker does: good where all of them are."""
    pages = _ask_all(workers, path)
    good_ones = {name for name, page in pages.items() if page.status == HTTPStatus.OK}
    bad = [worker.name for worker in workers if worker.name not in good_ones]
    text = f"not {good}: {', '.join(bad)}\n" if bad else f"{good}\n"
    return Response(text.encode(), status=_http_status(is_good=not bad))


def _ask_all(workers: Sequence[PagedWorker], path: str) -> dict[str, _WorkerPage]:
    """Ask workers at once; one that does not answer in time is left out."""
    found: dict[str, _WorkerPage] = {}
    threads = [
        threading.Thread(target=_ask, args=(worker, path, found), daemon=True)
        for worker in workers
        if worker.is_running
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * _TIMEOUT_SECONDS)
    return dict(found)


def _ask(worker: PagedWorker, path: str, found: dict[str, _WorkerPage]) -> None:
    """Ask one worker; http.client would take a third of the parent's memory."""
    try:
        with socket.create_connection((ADDRESS, worker.port or 0), timeout=_TIMEOUT_SECONDS) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            with connection.makefile("rb") as answer:
                head, _, body = answer.read().partition(b"\r\n\r\n")
        found[worker.name] = _WorkerPage(int(head.split(b" ", 2)[1]), body)
    except (OSError, ValueError, IndexError):
        return  # the page shows that it did not answer


def _report(page: _WorkerPage | None) -> dict[str, Any]:
    if page is None:
        return _UNKNOWN
    try:
        report: dict[str, Any] = json.loads(page.body)
    except ValueError:
        return _UNKNOWN
    return report


def _names(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of the checks; that of Redis in any case, by which a page is known as one of health."""
    return list(dict.fromkeys(["redis", *(name for report in reports.values() for name in report["checks"])]))


def _merged(checks: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    return {"status": _together([check["status"] if check else "unhealthy" for check in checks])}


def _together(statuses: Sequence[str]) -> str:
    """Return the status of all: unhealthy where each is, degraded where they differ."""
    different = set(statuses)
    return different.pop() if len(different) == 1 else "degraded"


def _http_status(*, is_good: bool) -> int:
    return HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
