"""Requests that could never be sent are refused at start; a failure before a byte is sent is free, and no outage."""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from dspy import lm15

from dspyq.config.settings import load_settings
from dspyq.errors import ConfigurationError, PredictionFailed
from dspyq.guards.call_records import JobRun
from dspyq.guards.ledger import Ledger
from dspyq.guards.limits import Limits
from dspyq.guards.model import Guards
from dspyq.programs.endpoint import ProviderTransport
from dspyq.programs.failures import classify, not_sent
from dspyq.programs.runner import Runner, build_programs
from tests.support.configuration import write_settings
from tests.support.endpoint import Endpoint
from tests.support.redis_server import RedisServer

QUESTION = {"question": "hi"}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client(decode_responses=False) as connected:
        yield connected


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("canary\nkey", "holds a control character, a line break or a character beyond ASCII"),
        ("canary\x00key", "holds a control character"),
        ("canary\x7fkey", "holds a control character"),
        ("canary\N{RIGHT SINGLE QUOTATION MARK}", "a character beyond ASCII"),
        ("\N{ZERO WIDTH NO-BREAK SPACE}canary", "a character beyond ASCII"),
        ("canary-\N{LATIN SMALL LETTER E WITH ACUTE}", "a character beyond ASCII"),
    ],
)
def test_a_key_that_http_cannot_carry_is_refused_by_its_variables_name(
    build: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch, value: str, fault: str
) -> None:
    if "\0" in value:
        monkeypatch.setattr(os, "environ", {**os.environ, "SOME_KEY": value})  # no shell can say it
    else:
        monkeypatch.setenv("SOME_KEY", value)
    with pytest.raises(ConfigurationError, match=rf"models\.m\.api_key_env: .*SOME_KEY {fault}|{fault}") as refused:
        build(model={"api_key_env": "SOME_KEY"})
    assert "canary" not in str(refused.value)


def test_blanks_at_the_ends_of_a_key_are_left_out(
    build: Callable[..., Runner], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("s3cret-key", " s3cret-key\r\n", "\N{NO-BREAK SPACE}s3cret-key\t"):
        monkeypatch.setenv("SOME_KEY", value)
        build(model={"api_key_env": "SOME_KEY"}).run(QUESTION)
    assert len({request.headers["authorization"] for request in endpoint.requests()}) == 1


@pytest.mark.parametrize("name", ["sk-canary-key", "a b", "", "gsk_canary_key"])
def test_a_key_in_place_of_a_variables_name_is_not_shown(build: Callable[..., Runner], name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"models\.m\.api_key_env: ") as refused:
        build(model={"api_key_env": name})
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    "api_base",
    [
        "http://",
        "https:///v1",
        "http://:8000/v1",
        "http://a b/v1",
        "http://canary/v1\n",
        "http://canary/v1#x",
        "ftp://user:canary@host",
        "canary:8000",
        "https://user:canary@host/v1",
        "https://canary@host/v1",
        "http://host:99999/v1",
        "http://host:canary/v1",
        "http://host:/v1",
        "http://[::1/v1",
        "http://[canary]/v1",
        "http://canary..example/v1",
        "http://" + "canary" * 11 + ".example/v1",
        "http://h\N{LATIN SMALL LETTER O WITH DIAERESIS}st/v1",
    ],
)
def test_an_api_base_that_nothing_can_be_sent_to_is_refused_and_not_shown(
    build: Callable[..., Runner], api_base: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"^models\.m\.api_base: ") as refused:
        build(model={"api_base": api_base})
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    "tables",
    [
        {"logging": {"loki_url": "http://host:canary"}},
        {"logging": {"loki_url": "http://user:canary@host"}},
        {"logging": {"loki_authorization_env": "Bearer canary"}},
        {"tracing": {"endpoint": "http://user:canary@host:99999"}},
        {"tracing": {"endpoint": "http://user:canary@host\n"}},
    ],
)
def test_other_endpoints_are_looked_at_likewise(tmp_path: Path, tables: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(write_settings(tmp_path / "dspyq.toml", tables))
    assert "canary" not in str(refused.value)


def test_a_query_in_api_base_is_sent_behind_the_path(build: Callable[..., Runner]) -> None:
    heads = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                heads.append(connection.recv(10_000).decode())
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/openai/v1/?api-version=2024-10-21"
        with pytest.raises(PredictionFailed):
            build(model={"api_base": url}).run(QUESTION)
        thread.join(60)
    assert heads[0].startswith("POST /openai/v1/chat/completions?api-version=2024-10-21 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("variable", "proxy"),
    [
        ("HTTP_PROXY", "https://user:canary@127.0.0.1:3128"),
        ("ALL_PROXY", "socks5://user:canary@127.0.0.1:1080"),
        ("ALL_PROXY", "http://user:canary@127.0.0.1:canary"),
        ("ALL_PROXY", "http://user:can/ary@127.0.0.1"),
        ("ALL_PROXY", "http://user:can#ary@/"),
        ("HTTP_PROXY", "http://"),
        ("HTTP_PROXY", "http://pr\N{LATIN SMALL LETTER O WITH DIAERESIS}xy:1"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_by_its_variables_name(
    build: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch, variable: str, proxy: str
) -> None:
    monkeypatch.setenv(variable.lower(), proxy)
    with pytest.raises(ConfigurationError, match=f"^{variable}: ") as refused:
        build(model={"api_base": "http://models.example/v1"})
    assert not re.search("canary|can/|ary@", str(refused.value))


def test_a_proxys_password_reaches_the_proxy_alone(
    build: Callable[..., Runner], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = endpoint.url.removeprefix("http://").removesuffix("/v1")
    monkeypatch.setenv("all_proxy", f"http://user:p%40ss@{host}")
    assert build(model={"api_base": "http://nowhere.invalid/v1"}).run(QUESTION).outputs == {"answer": "echo:hi"}


@pytest.mark.parametrize(
    ("no_proxy", "api_base", "is_direct"),
    [
        ("10.0.0.0/8", "http://10.1.2.3/v1", True),
        ("localhost, 10.0.0.0/8", "http://11.1.2.3/v1", False),
        ("fd00::/8", "http://[fd00::1]:80/v1", True),
        ("10.0.0.0/8", "http://models.example/v1", False),
        ("models.example", "http://models.example/v1", True),
        ("*", "http://models.example/v1", True),
    ],
)
def test_no_proxy_takes_hosts_and_networks(
    build: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch, no_proxy: str, api_base: str, is_direct: bool
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    engine = build(model={"api_base": api_base})._lm.engine  # noqa: SLF001 - what no request would show
    assert (engine._transport._proxy is None) == is_direct  # noqa: SLF001 - as above


def test_what_was_never_sent_is_free_lasting_and_leaves_the_breaker_closed(
    endpoint: Endpoint, client: redis.Redis, tmp_path: Path
) -> None:
    table = {"api_base": endpoint.url, "input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 2.0}
    document = {
        "models": {"m": {"model": "openai/m", **table}},
        "programs": {"p": {"signature": "question -> answer", "variants": {"a": {"model": "m"}}}},
        "budget": {"daily_usd": 1},
        "breaker": {"failure_threshold": 1},
    }
    settings = load_settings(write_settings(tmp_path / "dspyq.toml", document))
    guards = Guards(settings, client)
    (runner,) = build_programs(settings, None, guards).values()
    runner._lm.engine._transport.query = "\n"  # noqa: SLF001 - the checks at start let nothing of the kind pass
    with closing(runner), pytest.raises(PredictionFailed, match="cannot be sent, and nothing was charged") as raised:
        runner.run(QUESTION, Ledger(JobRun("t", "", "p", "a", 1)))
    (call,) = raised.value.calls
    assert (call.cost_usd, call.is_estimated) == (0.0, False)
    assert not raised.value.retryable
    assert guards.breakers["m"].state.name == "closed"
    assert {(account.settled_nano_usd, account.held_nano_usd) for account in Limits(client, settings).accounts()} == {
        (0, 0)
    }
    assert endpoint.calls() == 0


def test_a_worker_that_is_ended_before_a_call_is_sent_charges_nothing(
    endpoint: Endpoint, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 2.0}
    document = {
        "models": {"m": {"model": "openai/m", "api_base": endpoint.url, **prices}},
        "programs": {"p": {"signature": "question -> answer", "variants": {"a": {"model": "m"}}}},
        "budget": {"daily_usd": 1},
    }
    settings = load_settings(write_settings(tmp_path / "dspyq.toml", document))
    (runner,) = build_programs(settings, None, Guards(settings, client)).values()

    def end(*_: object, **__: object) -> None:
        raise SystemExit

    monkeypatch.setattr(ProviderTransport, "_open", end)
    with closing(runner), pytest.raises(SystemExit):
        runner.run(QUESTION, Ledger(JobRun("t", "", "p", "a", 1)))
    accounts = Limits(client, settings).accounts()
    assert {(account.settled_nano_usd, account.held_nano_usd) for account in accounts} == {(0, 0)}


def _chained(message: str, *causes: Exception) -> lm15.TransportError:
    error = last = lm15.TransportError(message)
    for cause in causes:
        last.__cause__ = last = cause  # type: ignore[assignment]  # a chain of any errors
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_chained("failed to connect", OSError(errno.ECONNREFUSED, "refused")), "ill"),
        (_chained("failed to connect", OSError(errno.EMFILE, "Too many open files")), "local"),
        (_chained("all 100 connections were busy"), "local"),
        (lm15.TimeoutError("no answer within 1 s"), "ill"),
        (not_sent("m", ValueError("bad port")), "lasting"),
        (lm15.AuthError("no credential"), "account"),
    ],
)
def test_nothing_unsent_is_billed_and_our_own_faults_are_no_illness(error: Exception, kind: str) -> None:
    failure = classify(error, was_sent=False)
    assert (failure.kind, failure.is_billed) == (kind, False)


@pytest.mark.parametrize(
    ("status", "is_lasting"), [(b"407 Authentication Required", True), (b"502 Bad Gateway", False)]
)
def test_a_proxy_that_refuses_us_is_our_configurations_fault(
    build: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch, status: bytes, is_lasting: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://user:s3cret-word@127.0.0.1:{server.getsockname()[1]}")
        runner = build(model={"api_base": "https://models.example/v1"})
        with pytest.raises(PredictionFailed) as raised:
            runner.run(QUESTION)
        thread.join(60)
    assert raised.value.retryable != is_lasting
    assert "s3cret-word" not in str(raised.value)


def test_what_a_provider_sends_is_scrubbed_before_dspy_sees_it(
    build: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "canary-key-0123456789"
    body = f"<html>{'x' * 190}{key} {key[:10]}</html>".encode()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(10_000)
                head = f"HTTP/1.1 200 {key}\r\nX-Echo: {key}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                connection.sendall(head + body[:200])
                connection.sendall(body[200:])

        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setenv("SOME_KEY", key)
        runner = build(model={"api_base": f"http://127.0.0.1:{server.getsockname()[1]}/v1", "api_key_env": "SOME_KEY"})
        sent = []
        stream = ProviderTransport.stream

        def streaming(self: ProviderTransport, request: object) -> object:
            sent.append(stream(self, request))
            return sent[-1]

        monkeypatch.setattr(ProviderTransport, "stream", streaming)
        with pytest.raises(PredictionFailed) as raised:
            runner.run(QUESTION)
        thread.join(60)
    assert "canary" not in f"{raised.value} {raised.value.__cause__!r} {sent[0].reason} {sent[0].headers}"
