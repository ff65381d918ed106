"""The parsers that are fuzzed: of what lies in Redis, comes over HTTP, or is in a user's file.

Each raises an error of ours or none; any other one is a finding.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from dspyq.api_keys.form import id_in, read_key_id
from dspyq.batch.files.source import open_source
from dspyq.celery_app.application import process_app
from dspyq.config.settings import get_settings
from dspyq.config.signature import SignatureError, parse_signature
from dspyq.core import runtime
from dspyq.core.redis_address import parse_address
from dspyq.delivery.job_messages import message_of, request_of_message
from dspyq.delivery.records import Delivery
from dspyq.delivery.transport import _UNREADABLE
from dspyq.errors import DspyqError
from dspyq.experiments.token import ForgedToken, process_secret, read_token
from dspyq.prediction import stored
from dspyq.prediction.header import Header
from dspyq.sealing.codec import SealingCodec
from dspyq.sealing.key_source import LiveKeys
from dspyq.sealing.keyring import read_keyring
from dspyq.sealing.refusals import UnreadableContent
from dspyq.serve.asking.calls import read_options
from dspyq.serve.bodies import parse_json
from dspyq.serve.callers import ANYONE
from dspyq.serve.chat.requests import read_chat_request
from dspyq.serve.predictions.ids import CallOfPrediction, read_id, write_id
from dspyq.serve.problems import Declined
from dspyq.serve.streams.events import _read_place
from dspyq.serve.waiting.preferences import read_prefer, read_wait
from dspyq.store.fleet_secret import FleetSecret

_HASH, _ID = "ab" * 32, "0f0f0f0f-0000-4000-8000-000000000000"
_METADATA = {
    "program": "qa", "variant": "control", "model": "m", "input_hash": _HASH, "fingerprint": "f", "cost_usd": 0.1,
    "latency_seconds": 1.0, "timestamp": 1.0, "usage": {"prompt_tokens": 1, "completion_tokens": 1}, "request_id": "r",
}  # fmt: skip
_RESULT = {"outputs": {"answer": "a"}, "metadata": _METADATA}
_FAILURE = {"exc_type": "BudgetExceeded", "exc_message": ["spent"], "exc_module": "dspyq.errors"}
_HEADER = {
    "program": "qa", "variant": "control", "fingerprint": "f", "input_hash": _HASH, "request_id": "r", "refresh": False,
    "is_claimed": True,
}  # fmt: skip
_BODY = [[], {"question": "q"}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
_MESSAGE = {
    "body": orjson.dumps(_BODY).decode(), "content-encoding": "utf-8", "content-type": "application/json",
    "headers": {"id": _ID, "task": "predict", "retries": 0, "eta": None, "dspyq": _HEADER},
    "properties": {"body_encoding": "", "delivery_info": {"routing_key": "qa.control"}, "priority": 0},
}  # fmt: skip
_CHAT = {"model": "qa", "messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}], "stream": True}


class Target(NamedTuple):
    """A parser.

    Attributes:
        seeds: What it reads well, from which mutations start.
        run: It, as its callers call it.
        allowed: The errors that its callers expect.
    """

    seeds: list[bytes]
    run: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...] = (DspyqError,)


def targets() -> dict[str, Target]:
    """Return them by name; the process is configured."""
    program = get_settings().programs["qa"]
    runtime.current().put(process_secret, _Secret())
    keys = LiveKeys(_Lines())
    codec = SealingCodec(keys, {program.name: True})
    signing = bytes(32)
    public = write_id(CallOfPrediction(_ID, _ID, 1, None), "", signing)

    def results(text: bytes) -> None:
        stored.read_meta(text)
        stored.is_ready(text)
        stored.is_failure(text)
        stored.answers_question(text, _HASH)
        process_app().backend.decode_result(text)

    def chat(text: bytes) -> None:
        read_chat_request(parse_json(text))

    def ids(text: bytes) -> None:
        stated = text.decode(errors="surrogateescape")
        read_id(stated, "", signing)
        read_key_id(stated)
        id_in(stated)

    def read_file(suffix: str, text: bytes) -> None:
        folder = Path(_folder().name)
        file = folder / f"{os.getpid()}.{suffix}"
        file.write_bytes(text)
        for _ in open_source(file, spool=folder / "spool").rows(program):
            pass

    envelope = codec.encode("result", "mine", orjson.dumps(_RESULT))
    meta = {"status": "SUCCESS", "result": _RESULT, "traceback": None, "children": [], "task_id": _ID}
    failure = {**meta, "status": "FAILURE", "result": _FAILURE, "traceback": "t", "children": [[["x", None], None]]}
    return {
        "result": Target([orjson.dumps(meta), orjson.dumps(failure)], results),
        "message": Target([orjson.dumps(_MESSAGE)], _read_message, _UNREADABLE),
        "request": Target([orjson.dumps(_MESSAGE)], request_of_message),
        "header": Target([orjson.dumps(_HEADER)], lambda text: Header.read(_json(text))),
        "envelope": Target(
            [envelope, b"plain"], lambda text: codec.decode("result", "mine", text), (DspyqError, UnreadableContent)
        ),
        "token": Target(
            [f"x1.qa.{_HASH[:16]}.control.677.272.3573553.20788.{_HASH[:24]}.{_HASH[:16]}".encode()],
            lambda text: read_token(text.decode(errors="replace")),
            (DspyqError, ForgedToken),
        ),
        "ids": Target([public.encode(), b"dspyq_ZC06im7xaqTy_lB1DOuwHUmlVh6amWOa7XLYrS949XvdgqF7ywmeAvAO0zkYPd"], ids),
        "body": Target(
            [orjson.dumps({"inputs": {"question": "q"}, "priority": 3, "variant": "control"})],
            lambda text: read_options(parse_json(text), ANYONE),
            (DspyqError, Declined),
        ),
        "chat": Target([orjson.dumps(_CHAT)], chat, (DspyqError, Declined)),
        "headers": Target([b"12", b"respond-async, wait=3", b"wait=7&after=2"], _read_headers),
        "signature": Target(
            [b"question, context: list[str] -> answer, confidence: float"],
            lambda text: parse_signature.__wrapped__(text.decode(errors="replace")),
            (SignatureError,),
        ),
        "address": Target(
            [b"rediss://u:p@h:6379/1?ssl_cert_reqs=none", b"sentinel://:p@h:1;sentinel://h:2/0", b"unix:///x?db=1"],
            lambda text: parse_address(text.decode(errors="replace")),
            (DspyqError, ValueError),
        ),
        "jsonl": Target(
            [b'{"question": "q", "custom_id": "1"}\n{"question": "r"}\n'], functools.partial(read_file, "jsonl")
        ),
        "csv": Target([b'custom_id,question\n1,"a ""b"""\n2,c\n'], functools.partial(read_file, "csv")),
        "parquet": Target([_parquet()], functools.partial(read_file, "parquet")),
    }


def _read_headers(text: bytes) -> None:
    refusals = []
    readers = (lambda: _read_place(text, [text.decode("latin-1")]), lambda: read_prefer(text, 30.0))
    for read in (*readers, lambda: read_wait(text, 30.0)):
        try:
            read()
        except DspyqError as error:
            refusals.append(error)
    if len(refusals) > len(readers):  # no reader takes it
        raise refusals[0]


def _delivery(task_id: str, message: bytes) -> Delivery:
    return Delivery(task_id, 1, 1, is_given_up=False, is_claimed=True, message=message)


def _read_message(text: bytes) -> None:
    with contextlib.suppress(*_UNREADABLE):  # whose a message is to be is known from elsewhere: from its record
        message_of(_delivery(orjson.loads(text)["headers"]["id"], message=text))
        return
    message_of(_delivery(_ID, message=text))


class _Secret(FleetSecret):
    """The same secret in every run, without a Redis: tokens of the corpus are this fleet's."""

    def __init__(self) -> None:
        super().__init__("fuzz")

    def key(self) -> bytes:
        """Return it."""
        return bytes(32)


class _Lines:
    """One key, the same in every run: envelopes of the corpus open."""

    pause_seconds = 0.0

    def __init__(self) -> None:
        self._lines = [f"seal kfuzzing {'0f' * 32}", f"index ifuzzing {'f0' * 32}"]

    def read(self) -> Any:
        """Return its keyring."""
        return read_keyring(self._lines, "a fuzzer")

    def mark(self) -> tuple[str, ...]:
        """Return what changes with it."""
        return tuple(self._lines)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fuzz-")


def _json(text: bytes) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"question": ["q", "r"], "custom_id": ["1", "2"]}), sink)
    return sink.getvalue()
