"""An answer from memory through HTTP, beside a cached one of LiteLLM's proxy, in an environment of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.contenders import DSPYQ
from benchmarks.door_server import CONNECTIONS, PATH, QUESTION, Server, block, door, question, request
from benchmarks.environment import make_environment
from benchmarks.harness import MICROSECONDS, Servers
from benchmarks.repetition import alternate, median_ratio
from benchmarks.rows import Row, Skipped, Target
from tests.support.processes import free_port, wait_until

_REQUIREMENTS = "litellm[proxy]>=1.108\n"
_START_SECONDS = 120.0
_MODEL = "control"
_ASK = request("POST", "/v1/chat/completions", json.dumps({
    "model": _MODEL, "temperature": 0, "messages": [{"role": "user", "content": QUESTION}],
}).encode())  # fmt: skip


def run(*, quick: bool) -> list[Row]:
    """Measure the processor time of a cached answer of both, in turns; neither checks a key.

    Raises:
        Skipped: If LiteLLM's proxy does not install here.
    """
    calls, proxy_calls, rounds = (200, 16, 1) if quick else (2_000, 160, 9)
    try:
        python = make_environment("litellm", _REQUIREMENTS)
    except (subprocess.SubprocessError, OSError) as error:
        raise Skipped(f"litellm[proxy] does not install here: {error}") from error
    with Servers() as servers, ExitStack() as started:
        with servers.worker(DSPYQ):
            servers.wait_for_results(servers.run("asking:ask_one", question=QUESTION))
        hit = request("POST", PATH, question(QUESTION))
        ours = block(started.enter_context(door(servers)), lambda: hit, calls)
        theirs = block(started.enter_context(_proxy(python, servers)), lambda: _ASK, proxy_calls)
        ours()  # the first is from Redis
        theirs()  # the first is from the model
        asked = servers.endpoint.calls()
        found = alternate(rounds, {"ours": ours, "theirs": theirs})
        if servers.endpoint.calls() > asked:
            raise RuntimeError("the proxy asked the model again: its answers were not cached")
    cpu = {name: [each.cpu_seconds for each in turns] for name, turns in found.items()}
    pace = {name: [each.per_second for each in turns] for name, turns in found.items()}
    return [
        Row(
            "hit through HTTP", "CPU per answer", "µs", median(cpu["ours"]) * MICROSECONDS, "LiteLLM's proxy",
            median(cpu["theirs"]) * MICROSECONDS, median_ratio(cpu["ours"], cpu["theirs"]),
            Target("ratio", "at most", 1 / 20), note=f"{CONNECTIONS} connections; its cache is local",
        ),
        Row(
            "hit through HTTP", "answers", "/s", median(pace["ours"]), "LiteLLM's proxy", median(pace["theirs"]),
            median_ratio(pace["ours"], pace["theirs"]),
        ),
    ]  # fmt: skip


@contextmanager
def _proxy(python: Path, servers: Servers) -> Iterator[Server]:
    """Run the proxy over the same model, with its cache in memory."""
    port = free_port()
    model = {"model": f"openai/{_MODEL}", "api_base": servers.endpoint.url, "api_key": "not-needed"}
    settings = {
        "model_list": [{"model_name": _MODEL, "litellm_params": model}],
        "litellm_settings": {"cache": True, "cache_params": {"type": "local"}, "telemetry": False},
    }
    env = {name: value for name, value in os.environ.items() if not name.startswith("DSPYQ_")}
    env |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    env["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"  # as the door without keys on loopback
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        path = Path(folder) / "proxy.yaml"
        path.write_text(json.dumps(settings))  # which is YAML too
        command = [str(python.with_name("litellm")), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
        with Server("litellm", command, port, ready_line="Set models", env=env) as server:
            wait_until(lambda: _listens(port), _START_SECONDS, "the proxy")
            yield server


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
