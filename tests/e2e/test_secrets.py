"""A secret that a provider and a proxy echo in every way leaves the run nowhere."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import quote

import pytest

from tests.support.collector import Collector
from tests.support.configuration import API_KEY_VARIABLE
from tests.support.monitor import Monitor

KEY = "sk-canary+key/0123456789"
PROXY_PASSWORD = "canary/of-the-proxy"
PARAMETER = "canary-of-a-query"
#: Also in base64, wherever the word begins there.
CANARIES = re.compile("canary|Canary|CANARY|Y2FuYXJ5|NhbmFye|jYW5hcn")

#: How a provider answers, by a word in the question: status, reason, further headers and body, all of them an echo.
ECHOES: dict[str, Callable[[str], tuple[int, str, dict[str, str], str]]] = {
    "as-400": lambda echo: (400, "Bad Request", {}, json.dumps({"error": {"message": f"wrong key: {echo}"}})),
    "as-code": lambda echo: (400, "Bad", {}, json.dumps({"error": {"message": "no", "code": echo, "type": echo}})),
    "as-500": lambda echo: (500, "Oops", {}, json.dumps({"error": {"message": echo}})),
    "as-page": lambda echo: (200, "OK", {"Content-Type": "text/html"}, f"<html>{'x' * 180}{KEY} {echo}</html>"),
    "as-malformed": lambda echo: (200, "OK", {}, json.dumps({"id": echo, "choices": [{"message": echo}]})),
    "as-error-in-200": lambda echo: (200, "OK", {}, json.dumps({"error": {"message": echo, "code": 400}})),
    "as-choice": lambda echo: (200, "OK", {}, json.dumps({"choices": [{"error": {"message": echo}}]})),
    "as-text": lambda echo: (200, "OK", {}, _completion(echo)),
    "as-escaped": lambda echo: (200, "OK", {}, re.sub("canary", r"\\u0063anary", _completion(echo))),
    "as-id": lambda echo: (200, "OK", {"x-request-id": echo}, _completion("fine", id=echo, model=echo)),
    "as-header": lambda echo: (400, f"No {echo}", {"x-request-id": echo, "retry-after": echo}, "{}"),
    "as-redirect": lambda echo: (302, "Found", {"Location": f"http://user:{quote(KEY)}@127.0.0.1/?key={KEY}"}, echo),
    "as-quoted": lambda echo: (400, "Bad", {}, quote(echo, safe="") + base64.b64encode(echo.encode()).decode()),
}  # fmt: skip


def _completion(text: str, **fields: str) -> str:
    content = f"[[ ## answer ## ]]\n{text}\n\n[[ ## completed ## ]]"
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return json.dumps(
        {"id": "1", "model": "m", "choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9}} | fields
    )


@pytest.fixture
def echoing() -> Iterator[str]:
    """A proxy, and the provider behind it, that answer with what they were sent; yields its host and port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
            echo = f"{self.path} {json.dumps(dict(self.headers))} {self.headers['Authorization']}"
            proxied = base64.b64decode(self.headers["Proxy-Authorization"].split()[1]).decode()
            way = next(way for name, way in ECHOES.items() if f"{name}." in asked)
            status, reason, headers, body = way(f"{echo} {proxied} {quote(KEY)}")
            self.send_response(status, reason.replace("\n", " "))
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(names):
    from dspyq import predict

    seen = {}
    for name in names:
        job = predict.delay(question=f"{name}. again")
        try:
            seen[name] = job.get(timeout=30).answer
        except Exception as error:  # noqa: BLE001 - of every kind
            seen[name] = f"{type(error).__name__}: {error} {error.__cause__!r} {job.traceback}"
    return seen


def found(text: str) -> list[str]:
    """Return the lines that hold a canary."""
    return [line[:400] for line in text.splitlines() if CANARIES.search(line)]


def test_no_echo_of_a_secret_leaves_the_run(
    echoing, settings_file, worker, run_producer, dspyq, redis_server, tmp_path
):
    with Collector() as collector:
        collector.status = 200
        model = {"api_base": f"http://models.invalid/v1?token={PARAMETER}", "parameters": {"user": "me"}}
        changes = {
            "models": {"control": model},
            "logging": {"include_content": True, "format": "json"},
            "tracing": {"endpoint": collector.url},
            "metrics": {"port": 0},
            "retry": {"max_attempts": 2, "base_delay_seconds": 0.01},
            "breaker": {"failure_threshold": 1000},
        }
        path = settings_file(changes)
        env = {
            API_KEY_VARIABLE: f"{KEY}\n",
            "http_proxy": f"http://user:{quote(PROXY_PASSWORD, safe='')}@{echoing}",
            "no_proxy": "127.0.0.0/8",
        }
        with redis_server.monitored() as monitored:
            running = worker(path, env=env, arguments=["-l", "DEBUG"])
            rows = tmp_path / "rows.jsonl"
            rows.write_text("".join(json.dumps({"question": f"{name}."}) + "\n" for name in ECHOES))
            out = tmp_path / "out.jsonl"
            shown = dspyq("batch", "run", str(rows), "--output", str(out), settings=path, ok=False)
            answers = run_producer(ask, path, names=list(ECHOES))
            metrics = Monitor.of(running).get("/metrics")[1]
            running.terminate()  # which exports the spans that wait
        files = "\n".join(file.read_text(errors="replace") for file in tmp_path.glob("out*") if file.is_file())
        spans = "\n".join(push.body.decode(errors="replace") for push in collector.pushes)
        commands = "\n".join(command.text for command in monitored)
    assert not found(json.dumps(answers, indent=1))
    assert not found(files)
    assert not found(commands)
    assert not found(running.logs())
    assert not found(metrics)
    assert not found(spans)
    assert not found(shown.stdout + shown.stderr)
    assert len(out.read_text().splitlines()) == len(ECHOES)
    assert all("[secret]" in answers[name] for name in ("as-400", "as-text", "as-escaped", "as-page"))
    assert "fine" in answers["as-id"]
    assert "celery-task-meta-" in commands
    assert collector.pushes
