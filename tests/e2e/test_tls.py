"""TLS with servers and with sentinels, which the embedded Valkey has not: with Debian's redis-server and openssl."""

import shutil
import subprocess

import pytest

from tests.support.processes import LocalProcess, free_port

MASTER = "jobs"
PASSWORD, SENTINELS_PASSWORD = "of-the-server", "of-the-sentinels"


def tool(name, package):
    if (found := shutil.which(name)) is None:
        pytest.skip(f"{name} is not here; it comes from Debian's {package}")
    return found


@pytest.fixture
def authority(tmp_path):
    """A certificate for this machine, which is its own authority."""
    openssl = tool("openssl", "openssl")
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", tmp_path / "key.pem", "-out", tmp_path / "ca.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return tmp_path / "ca.pem"


@pytest.fixture
def urls(authority, tmp_path):
    """A server and its sentinel, which speak TLS alone."""
    program = tool("redis-server", "redis-server")
    server_port, sentinel_port = free_port(), free_port()
    tls = ["--tls-cert-file", authority, "--tls-key-file", tmp_path / "key.pem", "--tls-ca-cert-file", authority]
    tls += ["--tls-auth-clients", "no", "--tls-replication", "yes", "--port", "0", "--bind", "127.0.0.1"]
    tls += ["--dir", tmp_path]
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"sentinel monitor {MASTER} 127.0.0.1 {server_port} 1\nsentinel auth-pass {MASTER} {PASSWORD}\n"
        f"requirepass {SENTINELS_PASSWORD}\n"
    )
    server = [program, "--tls-port", server_port, "--save", "", "--requirepass", PASSWORD, *tls]
    sentinel = [program, configuration, "--sentinel", "--tls-port", sentinel_port, *tls]
    with (
        LocalProcess("redis", list(map(str, server)), ready_line="Ready to accept connections") as redis,
        LocalProcess("sentinel", list(map(str, sentinel)), ready_line="+monitor master") as watcher,
    ):
        redis.ready()
        watcher.ready()
        options = f"ssl_ca_certs={authority}"
        yield {
            "server": f"rediss://:{PASSWORD}@127.0.0.1:{server_port}/1?{options}",
            "sentinels": f"sentinels://:{PASSWORD}@127.0.0.1:{sentinel_port}/1?{options}",
        }


@pytest.mark.parametrize("kind", ["server", "sentinels"])
def test_predictions_are_answered_over_tls(urls, kind, settings_file, worker, start_producer, dspyq):
    changes = {"sentinel_master": MASTER, "sentinel_password": SENTINELS_PASSWORD} if kind == "sentinels" else {}
    path = settings_file(changes)
    worker(path, redis_url=urls[kind])

    def ask():
        from dspyq import predict
        from dspyq.celery_app.application import app

        return [predict.delay(question="q").get(timeout=20).answer, len(app.control.ping(timeout=2))]

    assert start_producer(ask, path, redis_url=urls[kind]).result(40) == ["echo:q", 1]
    dspyq("check", settings=path, redis_url=urls[kind])


def test_a_certificate_of_an_unknown_authority_is_refused_in_a_line(urls, dspyq):
    done = dspyq("check", redis_url=urls["server"].partition("?")[0], ok=False)
    assert "certificate verify failed" in " ".join((done.stdout + done.stderr).split())
