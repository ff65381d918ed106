"""A worker that is short of something of its own: no illness of the provider, nothing charged, nothing counted."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from dspy import lm15

from dspyq.config.settings import load_settings
from dspyq.errors import Unavailable
from dspyq.guards.call_records import JobRun
from dspyq.guards.interruptions import Refusal
from dspyq.guards.ledger import Ledger
from dspyq.guards.model import Guards
from dspyq.programs.failures import classify
from dspyq.programs.runner import build_programs
from tests.support.configuration import write_settings
from tests.support.endpoint import Endpoint
from tests.support.redis_server import RedisServer


@contextmanager
def no_file_left() -> Iterator[None]:
    """Let this process open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    most = max(int(file.name) for file in Path("/proc/self/fd").iterdir()) + 4
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        with suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in held:
            os.close(number)


def test_a_worker_without_open_files_waits_and_its_breaker_stays_closed(
    endpoint: Endpoint, redis_server: RedisServer, tmp_path: Path
) -> None:
    table = {"api_base": endpoint.url, "input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 2.0}
    document = {
        "models": {"m": {"model": "openai/m", **table}},
        "programs": {"p": {"signature": "question -> answer", "variants": {"a": {"model": "m"}}}},
        "breaker": {"failure_threshold": 1},
    }
    settings = load_settings(write_settings(tmp_path / "dspyq.toml", document))
    with redis_server.client(decode_responses=False) as client:
        guards = Guards(settings, client)
        for is_short in (False, True):  # the first loads what is loaded with the first call, and files to Redis
            (runner,) = build_programs(settings, None, guards).values()
            ledger = Ledger(JobRun(f"t{is_short}", "", "p", "a", 1))
            with closing(runner):
                if not is_short:
                    assert runner.run({"question": "hi"}, ledger).outputs
                    continue
                with no_file_left(), pytest.raises(Refusal, match="Too many open files") as refused:
                    runner.run({"question": "hi"}, ledger)
        assert isinstance(refused.value.error, Unavailable)
        assert "ulimit -n" in str(refused.value.error)
        assert refused.value.pauses_queue
        assert [(call.cost_usd, call.spends_attempt, call.row) for call in ledger.calls] == [(0.0, False, 0)]
        assert not client.exists("dspy:v1:breaker:m")
        assert endpoint.calls() == 1


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "local"),
        (OSError(errno.ENFILE, "Too many open files in system"), "local"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "local"),
        (OSError(errno.ENOBUFS, "No buffer space available"), "local"),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), "local"),
        (socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure"), "local"),
        (MemoryError(), "local"),
        (RuntimeError("can't start new thread"), "local"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "ill"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "ill"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "ill"),
        (OSError(errno.ECONNREFUSED, "Connection refused"), "ill"),
    ],
)
def test_what_is_ours_and_what_counts_as_the_providers(cause: Exception, kind: str) -> None:
    error = lm15.TransportError("failed to connect")
    error.__cause__ = cause
    failure = classify(error, was_sent=False)
    assert (failure.kind, failure.is_billed) == (kind, False)


def test_a_lookup_that_fails_without_a_file_left_is_ours() -> None:
    error = lm15.TransportError("failed to connect")
    error.__cause__ = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    with no_file_left():
        assert classify(error, was_sent=False).kind == "local"


def test_words_of_a_provider_do_not_make_its_illness_ours() -> None:
    assert classify(lm15.ServerError("all connections were busy", status=503), was_sent=True).kind == "ill"
