"""The view of jobs of every fate: Flower, the worker's log, events, remote control, process titles, keys."""

from __future__ import annotations

import html
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from celery import states

from tests.support.configuration import default_document, environment, merged, write_settings
from tests.support.endpoint import Endpoint
from tests.support.processes import LocalProcess, free_port, wait_until
from tests.support.producer_process import Producer
from tests.support.redis_server import RedisServer
from tests.support.worker import Worker

#: Words that are nowhere but in what users write, what models answer and what goes wrong.
QUESTION, ANSWER, ERROR = "asked-canary", "answered-canary", "failed-canary"
#: Also a question, of jobs that wait for the endpoint.
HELD = f"held {QUESTION}"
PASSWORD = "a-password-that-must-not-appear-anywhere"
WAITING_JOBS = 100

_CELERY = str(Path(sys.executable).with_name("celery"))
_REQUEST_TIMEOUT_SECONDS = 20
_LINK = re.compile(r'href="(/[^"#]*)"')
_DATATABLE = "/tasks/datatable?draw=1&start=0&length=100&order[0][column]=0&order[0][dir]=asc&columns[0][data]=name"


@dataclass(frozen=True)
class Observation:
    """The observed values.

    Attributes:
        worker: The worker's name.
        jobs: The ids of the jobs, by what became of them.
        pages: Flower's responses by method and path: the status, and the headers and body as text.
        log: The worker's log at the level DEBUG.
        flower_log: What Flower wrote.
        events: What ``celery events --dump`` printed.
        inspection: What ``celery inspect`` and ``celery report`` answer, as JSON.
        titles: The command lines of all these processes.
        keys: The names of Redis's keys.
    """

    worker: str
    jobs: dict[str, str]
    pages: dict[str, tuple[int, str]]
    log: str
    flower_log: str
    events: str
    inspection: str
    titles: str
    keys: str

    def json(self, page: str) -> Any:
        """Return a page's body as JSON."""
        return json.loads(self.pages[page][1].partition("\n\n")[2])


def observe(endpoint: Endpoint, folder: Path, *, include_content: bool) -> Observation:
    """Run jobs of every fate and look at them everywhere.

    Args:
        endpoint: The model endpoint.
        folder: Where the configuration file goes.
        include_content: The setting ``logging.include_content``.
    """
    with ExitStack() as running:
        redis_server = running.enter_context(RedisServer(password=PASSWORD))
        settings_file = write_settings(folder / "dspyq.toml", _document(endpoint.url, include_content=include_content))
        env = environment(settings_file, redis_server.url, {"FLOWER_UNAUTHENTICATED_API": "true"})
        port = free_port()
        arguments = ["-l", "DEBUG", "-Q", "qa.control,indiscreet.control,dspyq"]
        worker = running.enter_context(Worker(env, arguments=arguments, is_forked=False))
        flower_command = [_CELERY, "-A", "dspyq", "flower", f"--port={port}"]
        flower = running.enter_context(LocalProcess("flower", flower_command, ready_line="Visit me", env=env))
        dump_command = [_CELERY, "-A", "dspyq", "events", "--dump"]
        dump = running.enter_context(LocalProcess("events", dump_command, ready_line="heartbeat", env=env))
        for process in (worker, flower, dump):
            process.ready()
        browser = _Browser(f"http://127.0.0.1:{port}")
        wait_until(lambda: browser.get("/api/workers?status=1") == {worker.node_name: True}, 60, "Flower's first event")
        _script(endpoint)
        producer = Producer(_send_jobs, {"question": QUESTION, "held": HELD, "waiting_jobs": WAITING_JOBS}, env)
        running.callback(producer.close)
        sent = producer.result(timeout_seconds=60)
        jobs = sent["jobs"]
        wait_until(lambda: _shows(browser.get("/api/tasks"), jobs), 60, "the jobs' events in Flower")
        browser.look_at_everything(worker.node_name, jobs)
        titles = "\n".join(title for process in (worker, flower, dump) for title in _titles(process.pid))
        keys = "\n".join(redis_server.keys())
        endpoint.release()
        browser.act(worker.node_name, jobs)
        return Observation(
            worker=worker.node_name,
            jobs=jobs,
            pages=browser.pages,
            log=worker.logs(),
            flower_log=flower.logs(),
            events=dump.logs(),
            inspection=json.dumps(sent["inspection"]),
            titles=titles,
            keys=keys,
        )


def _shows(tasks: dict[str, Any], jobs: dict[str, str]) -> bool:
    """Return True if all jobs are shown, and the end of those that are not held: a result comes before its event."""
    ended = [job for name, job in jobs.items() if not name.startswith("held")]
    return set(jobs.values()) <= tasks.keys() and all(tasks[job]["state"] in states.READY_STATES for job in ended)


def _document(endpoint_url: str, *, include_content: bool) -> dict[str, Any]:
    control = {"variants": {"control": {"model": "control"}}, "signature": "question -> answer"}
    changes = {
        "programs": {
            "indiscreet": {**control, "class": "tests.support.indiscreet_program:Indiscreet"},
            "unserved": control,
        },
        "workers": {"concurrency": 2, "prefetch_multiplier": 2, "imports": ["tests.support.indiscreet"]},
        "logging": {"include_content": include_content},
    }
    return merged(default_document(endpoint_url), changes)


def _script(endpoint: Endpoint) -> None:
    endpoint.reset()
    endpoint.script(outputs={"answer": ANSWER})
    error = {"message": ERROR, "type": "invalid_request_error", "code": "invalid"}
    endpoint.script(containing="refused", status=400, body=json.dumps({"error": error}))
    endpoint.hold(containing=HELD)


def _send_jobs(question: str, held: str, waiting_jobs: int) -> dict[str, Any]:
    """Run in a producer's process: send jobs, wait for those that end, and ask the worker about the others."""
    import time
    import uuid

    from kombu import Producer

    from dspyq import predict
    from dspyq.celery_app.application import app
    from tests.support import indiscreet

    def ask(text: str, program: str = "qa", **options: Any) -> Any:
        return predict.apply_async(kwargs={"question": text}, program=program, **options)

    revoked_id = str(uuid.uuid4())
    app.control.revoke(revoked_id, reply=True, limit=1)
    ended = {
        "answered": ask(question),
        "refused": ask(f"{question} refused"),
        "raised": ask(question, "indiscreet"),
        "revoked": ask(f"{question} revoked", task_id=revoked_id),
        "returned": indiscreet.echo.delay(question),
        "failed": indiscreet.fail.delay(question),
        "retried": indiscreet.retry.delay(question),
        "unstorable": indiscreet.return_what_is_not_json.delay(question),
    }
    with app.connection() as connection:
        publisher = Producer(connection.default_channel, routing_key="dspyq")
        task = {"task": "tests.support.indiscreet.echo"}
        publisher.publish({question: question})
        publisher.publish(question.encode() + b"\xff", content_type="application/json", content_encoding="utf-8")
        publisher.publish([[question], {}, {}], headers={"task": "nobody.knows", "id": str(uuid.uuid4())})
        publisher.publish([[question], {}, {}], headers={**task, "id": str(uuid.uuid4()), "expires": question})
        publisher.publish([[question], question, {}], headers={**task, "id": str(uuid.uuid4())})
    for job in ended.values():
        job.get(timeout=30, propagate=False)
    predict.many([{"question": f"{question} {number}"} for number in range(waiting_jobs)], program="unserved")
    jobs = {**ended, **{f"held{number}": ask(f"{held} {number}") for number in range(4)}}
    inspect = app.control.inspect(limit=1, timeout=10)
    end = time.monotonic() + 10
    while not (inspect.active() and any(inspect.active().values()) and any(inspect.reserved().values())):
        assert time.monotonic() < end
    inspection = {name: getattr(inspect, name)() for name in ("active", "reserved", "scheduled", "revoked", "stats")}
    inspection["query_task"] = inspect.query_task([job.id for job in jobs.values()])
    inspection |= {"conf": inspect.conf(), "report": inspect.report(), "own report": app.bugreport()}
    return {"jobs": {name: job.id for name, job in jobs.items()}, "inspection": inspection}


def _titles(pid: int) -> Iterator[str]:
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        yield " ".join(each.cmdline())


class _Browser:
    """Asks Flower and keeps what it answers."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self.pages: dict[str, tuple[int, str]] = {}

    def get(self, path: str) -> Any:
        """Return JSON, and keep nothing."""
        return json.loads(self._fetch("GET", path)[2])

    def look_at_everything(self, worker: str, jobs: dict[str, str]) -> None:
        """Ask for every page and every path of the API that only shows, and for whatever pages link to."""
        for path in (
            *("/", "/workers", "/workers?json=1", "/workers?refresh=1", f"/worker/{worker}", "/tasks", _DATATABLE),
            *("/broker", "/metrics", "/healthcheck", "/login", "/logout", "/nowhere"),
            *("/api/workers", "/api/workers?refresh=1", f"/api/workers?refresh=1&workername={worker}"),
            *("/api/tasks", "/api/task/types", "/api/queues/length"),
        ):
            self._visit(path)
        for job_id in jobs.values():
            self._visit(f"/task/{job_id}")
            self._visit(f"/api/task/info/{job_id}")
            self._visit(f"/api/task/result/{job_id}")
        for job in ("answered", "raised"):
            self._visit(f"/api/task/result/{jobs[job]}?timeout=1")
        self._keep("POST", _DATATABLE)

    def act(self, worker: str, jobs: dict[str, str]) -> None:
        """Use every path of the API that does something; the worker ends with the last."""
        asked = {"kwargs": {"question": QUESTION}, "program": "qa"}
        predict, echo, fail = "dspyq.predict", "tests.support.indiscreet.echo", "tests.support.indiscreet.fail"
        actions: list[tuple[str, Any]] = [
            (f"/api/task/apply/{predict}", asked),
            (f"/api/task/apply/{fail}", {"args": [ERROR]}),
            (f"/api/task/async-apply/{predict}", {**asked, "kwargs": {QUESTION: QUESTION}}),
            (f"/api/task/async-apply/{echo}", {"args": [QUESTION]}),
            (f"/api/task/send-task/{echo}", {"args": [QUESTION]}),
            (f"/api/task/abort/{jobs['answered']}", None),
            (f"/api/task/revoke/{jobs['held0']}", None),
            (f"/api/task/timeout/{echo}?workername={worker}&soft=10", None),
            (f"/api/task/rate-limit/{echo}?workername={worker}&ratelimit=10", None),
            *((f"/api/worker/pool/{action}/{worker}", None) for action in ("grow", "shrink", "restart")),
            (f"/api/worker/pool/autoscale/{worker}?min=1&max=2", None),
            (f"/api/worker/queue/add-consumer/{worker}?queue=dspyq", None),
            (f"/api/worker/queue/cancel-consumer/{worker}?queue=unserved.control", None),
        ]
        with ThreadPoolExecutor() as threads:  # most of them wait a second for replies
            for _ in threads.map(lambda action: self._keep("POST", *action), actions):
                pass
        self._keep("POST", f"/api/worker/shutdown/{worker}")

    def _visit(self, path: str) -> None:
        body = self._keep("GET", path)
        for link in _LINK.findall(body):
            linked = html.unescape(link)
            if f"GET {linked}" not in self.pages and not linked.startswith("/static/"):
                self._visit(linked)

    def _keep(self, method: str, path: str, content: Any = None) -> str:
        status, headers, body = self._fetch(method, path, content)
        self.pages[f"{method} {path}"] = (status, f"{headers}\n\n{body}")
        return body

    def _fetch(self, method: str, path: str, content: Any = None) -> tuple[int, str, str]:
        data = json.dumps(content or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self._base_url + path, data=data, method=method)  # noqa: S310 - loopback HTTP
        try:
            response = urllib.request.urlopen(request, timeout=_REQUEST_TIMEOUT_SECONDS)  # noqa: S310 - loopback HTTP
        except urllib.error.HTTPError as error:
            response = error
        with response:
            headers = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
            return response.status, headers, response.read().decode()
