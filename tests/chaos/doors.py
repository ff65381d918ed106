"""Callers of the HTTP door whose server, or whose Redis, goes away: each gets its one answer, which is billed once."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from types import SimpleNamespace
from typing import Any

import httpx

from tests.chaos.callers import Call
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import REPLY, Stage
from tests.support.door import Door
from tests.support.processes import wait_until

_PLACE = "/v1/programs/qa/predictions"
_PATIENCE_SECONDS = 60.0
_SECONDS_BETWEEN_TRIES = 0.2
#: How long a streamed answer takes, some twenty pieces.
_STREAM_SECONDS, _PIECE_SECONDS = 9.0, 0.45
_BUSY = 429
_FAULT = 500


class HttpCaller(threading.Thread):
    """A client of servers, which asks again where one cannot be reached or states that a retry helps.

    Args:
        doors: The servers, of which it asks those that run.
        question: Its question.

    Attributes:
        doors: The same.
        call: What came of it.
        tries: How often it has asked.
    """

    def __init__(self, doors: Sequence[Door], question: str) -> None:
        super().__init__(daemon=True)
        self.doors = doors
        self.tries = 0
        self._end_at = time.monotonic() + _PATIENCE_SECONDS
        self.call = Call(question, SimpleNamespace(id=""), time.time())
        self.start()

    def run(self) -> None:
        """Ask until there is an answer, or an error that no retry helps."""
        while self.call.answered_at is None and time.monotonic() < self._end_at:
            server = next(door for door in self.doors if door.is_running)
            self.tries += 1
            with suppress(httpx.HTTPError):
                self.ask(server)
            time.sleep(_SECONDS_BETWEEN_TRIES)

    def ask(self, server: Door) -> None:
        """Ask once, and look at what is not answered in time."""
        body = {"inputs": {"question": self.call.question}}
        reply = httpx.post(f"{server.url}{_PLACE}", json=body, timeout=_PATIENCE_SECONDS)
        while reply.is_success and reply.json()["status"] in {"queued", "running"}:
            reply = httpx.get(f"{server.url}{reply.json()['urls']['self']}?wait=5", timeout=_PATIENCE_SECONDS)
        if reply.is_success:
            self.note(reply.json())
        elif reply.status_code < _FAULT and reply.status_code != _BUSY:
            self._fail(reply.text)

    def note(self, prediction: dict[str, Any]) -> None:
        """Note what came of a prediction."""
        self.call.handle.id = _task_of(prediction["id"])
        if prediction["status"] != "succeeded":
            self._fail(json.dumps(prediction))
            return
        self.call.answer = prediction["outputs"]["answer"]
        self.call.answered_at = time.time()

    def _fail(self, error: str) -> None:
        self.call.error, self.call.answered_at = error[:300], time.time()


class HttpListener(HttpCaller):
    """A client of a stream, which goes on behind its last event wherever it can.

    Attributes:
        text: The text that it has by now.
    """

    def __init__(self, doors: Sequence[Door], question: str) -> None:
        self.text = ""
        self._place = ""
        self._after = ""
        super().__init__(doors, question)

    def ask(self, server: Door) -> None:
        """Ask for the stream, or for the rest of it."""
        if self._place:
            request = httpx.Request("GET", f"{server.url}{self._place}", headers={"Last-Event-ID": self._after})
        else:
            body = {"inputs": {"question": self.call.question}, "stream": True}
            request = httpx.Request("POST", f"{server.url}{_PLACE}", json=body)
        with httpx.Client(timeout=_PATIENCE_SECONDS) as client:
            reply = client.send(request, stream=True)
            if reply.is_success:
                for name, data, place in _events(reply.iter_lines()):
                    self._take(name, data, place)

    def _take(self, name: str, data: dict[str, Any], place: str) -> None:
        if not self._place:
            self._place = f"/v1/predictions/{data['id']}/events"
        if place:
            self._after = place
        if name == "delta":
            self.text += data["text"]
        elif name == "reset":
            self.text = ""
        elif name in {"completed", "failed"}:
            self.note(data if name == "completed" else {"id": self._place.split("/")[3], "status": name})


def _events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any], str]]:
    event: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in event:
                yield event["event"], json.loads(event["data"]), event.get("id", "")
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


def _task_of(public_id: str) -> str:
    from dspyq.serve.door import process_serve_secret
    from dspyq.serve.predictions.ids import read_id

    call = read_id(public_id, "", process_serve_secret().key())
    return call.task_id if call else ""


def killed_door(scale: Scale) -> Outcome:
    """Kill a server with callers that wait and streams; they go on at another."""

    def apply(stage: Stage, doors: Sequence[Door]) -> None:
        del stage
        doors[0].kill()

    outcome = _run(scale, "HTTP server killed, {callers} wait, {streams} stream", apply)
    stayed = outcome.figures["streams"] - outcome.figures["streams resumed"]
    return outcome.worsened(remarks=[f"{stayed} streams did not break off"] if stayed else [])


def redis_away(scale: Scale) -> Outcome:
    """Kill an append-only Redis while callers wait at a server, and start it again."""
    seconds = scale.pick(quick=1, full=5)

    def apply(stage: Stage, doors: Sequence[Door]) -> None:
        del doors
        stage.redis.process.kill()
        time.sleep(seconds)
        stage.redis.process.start()
        stage.redis.process.ready()

    return _run(scale, f"Redis {seconds} s away at the HTTP server, {{callers}} wait, {{streams}} stream", apply)


def _run(scale: Scale, fault: str, apply: Callable[[Stage, Sequence[Door]], None]) -> Outcome:
    callers, streams = scale.pick(quick=12, full=60), scale.pick(quick=4, full=20)
    settings = {
        "delivery": {"max_deliveries": 3, "claim_timeout_seconds": 5},
        "serve": {"hangup_seconds": 30},
        "models": {"control": {"timeout_seconds": 60}},  # a machine that does much else streams more slowly
    }
    options: dict[str, Any] = {"model_seconds": _STREAM_SECONDS, "concurrency": streams, "is_append_only": True}
    with Stage(**options, settings=settings) as stage, ExitStack() as started:
        stage.worker()
        doors = [started.enter_context(Door(stage.environment())) for _ in range(2)]
        for door in doors:
            door.ready()
        stage.endpoint.clear()
        stage.endpoint.script(content=REPLY, piece_characters=4, piece_interval_seconds=_PIECE_SECONDS)
        listeners = [HttpListener(doors, question) for question in stage.questions(streams, "a streamed question")]
        wait_until(lambda: all(each.text for each in listeners), 60, "text for every listener")
        waiting: list[HttpCaller] = [HttpCaller(doors[:1], each) for each in stage.questions(callers)]
        wait_until(lambda: doors[0].metric("dspyq_http_waiting") >= callers, 60, "the callers")
        for caller in waiting:
            caller.doors = doors
        stage.endpoint.clear()
        stage.endpoint.script(content=REPLY)
        apply(stage, doors)
        applied_at = time.time()
        asked = [*waiting, *listeners, *(HttpCaller(doors, each) for each in stage.questions(callers, "later"))]
        for each in asked:
            each.join(_PATIENCE_SECONDS)
        for each in asked:
            stage.note(each.call)
        wrong = sum(each.text != each.call.answer for each in listeners)
        remarks = [f"{wrong} listeners have another text than the answer"] if wrong else []
        remarks += _books(len(asked))
        recovery = stage.recovery_from(applied_at, [each.call for each in (*waiting, *listeners)])
        outcome = stage.outcome(fault.format(callers=callers, streams=streams), recovery, remarks=remarks)
        resumed = sum(each.tries > 1 for each in listeners)
        return dataclasses.replace(outcome, figures={"streams": streams, "streams resumed": resumed})


def _books(questions: int) -> Iterator[str]:
    """Yield a remark if not each question's call is billed, and once."""
    from dspyq.config.settings import get_settings
    from dspyq.guards.costs import read_costs
    from dspyq.store.clients import money_client

    def billed() -> int:
        lines = read_costs(money_client(), get_settings(), days=1)
        return sum(line.calls for line in lines) - sum(line.unknown_calls for line in lines)

    try:
        wait_until(lambda: billed() == questions, 10, "the books")
    except TimeoutError:
        yield f"{billed()} calls are billed"
