"""TLS with servers and with sentinels, which the embedded Valkey has not: with Debian's redis-server and openssl."""

import shutil
import subprocess

import pytest
import redis

from tests.support.journeys import few_of
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
            *(openssl, "req", "-x509", *_NEW_KEY, "-days", "2", "-subj", "/CN=localhost"),
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


@pytest.mark.parametrize("kind", few_of(["server", "sentinels"], 1))
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


class Authority:
    """An authority of a test, and certificates by it: of a server and of a client, in files that can be replaced.

    Args:
        folder: Where they are: ``ca.pem``, ``server.pem``, ``server.key``, ``client.pem``, ``client.key``.
    """

    def __init__(self, folder):
        self.folder = folder
        self._openssl = tool("openssl", "openssl")

    def make(self, authority):
        """Write a new authority and new certificates by it."""
        made = self.folder / authority
        made.mkdir()
        self._run(
            "req", "-x509", *_NEW_KEY, "-subj", f"/CN={authority}", "-keyout", made / "ca.key", "-out", made / "ca.pem"
        )
        for name in ("server", "client"):
            request = made / f"{name}.csr"
            names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
            key = made / f"{name}.key"
            self._run("req", *_NEW_KEY, "-subj", f"/CN={name}", *names, "-keyout", key, "-out", request)
            signer = ["-CA", made / "ca.pem", "-CAkey", made / "ca.key", "-CAcreateserial", "-copy_extensions", "copy"]
            self._run("x509", "-req", "-days", "2", "-in", request, *signer, "-out", made / f"{name}.pem")
        for file in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key"):
            (made / file).replace(self.folder / file)

    def _run(self, *arguments):
        subprocess.run([self._openssl, *map(str, arguments)], check=True, capture_output=True)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@pytest.fixture
def mutual(tmp_path):
    """A server that asks its clients for a certificate: its URL without one, the options of one, its authority."""
    program = tool("redis-server", "redis-server")
    authority = Authority(tmp_path)
    authority.make("first")
    port = free_port()
    options = ["--tls-cert-file", tmp_path / "server.pem", "--tls-key-file", tmp_path / "server.key"]
    options += ["--tls-ca-cert-file", tmp_path / "ca.pem", "--tls-auth-clients", "yes", "--dir", tmp_path]
    command = [program, "--port", 0, "--tls-port", port, "--bind", "127.0.0.1", "127.0.0.2", "--save", "", *options]
    command += ["--requirepass", PASSWORD]
    with LocalProcess("redis", list(map(str, command)), ready_line="Ready to accept connections") as server:
        server.ready()
        url = f"rediss://:{PASSWORD}@localhost:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}"
        yield url, f"&ssl_certfile={tmp_path / 'client.pem'}&ssl_keyfile={tmp_path / 'client.key'}", authority


def ask(question):
    from dspyq import predict

    return predict.delay(question=question).get(timeout=40).answer


def test_a_server_that_asks_for_certificates_answers_those_that_have_one_and_refuses_others(
    mutual, worker, start_producer, dspyq, tmp_path
):
    url, certificate, _ = mutual
    worker(redis_url=url + certificate)
    assert start_producer(ask, redis_url=url + certificate, question="q").result(60) == "echo:q"
    rows, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows.write_text('{"question": "row"}\n')
    dspyq("batch", "run", str(rows), "--output", str(out), redis_url=url + certificate)
    assert "echo:row" in out.read_text()
    refused = dspyq("check", redis_url=url, ok=False)
    assert "cannot reach Redis" in refused.stdout + refused.stderr
    elsewhere = url.replace("@localhost", "@127.0.0.2")
    wrong = dspyq("check", redis_url=elsewhere + certificate, ok=False)
    assert "certificate is not valid for" in " ".join((wrong.stdout + wrong.stderr).split())


def test_renewed_certificates_of_a_new_authority_are_used_without_a_restart(mutual, worker, start_producer):
    url, certificate, authority = mutual
    running = worker(redis_url=url + certificate)
    assert start_producer(ask, redis_url=url + certificate, question="before").result(60) == "echo:before"
    with redis.Redis.from_url(url + certificate) as admin:
        admin.ping()  # it connects while the first ones hold
        authority.make("second")
        files = {"tls-ca-cert-file": "ca.pem", "tls-cert-file": "server.pem", "tls-key-file": "server.key"}
        given = [part for name, file in files.items() for part in (name, str(authority.folder / file))]
        admin.execute_command("CONFIG", "SET", *given)
        for kind in ("normal", "pubsub"):
            admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    assert start_producer(ask, redis_url=url + certificate, question="after").result(90) == "echo:after"
    assert running.is_running
