"""The server of the endpoint: chat requests and batches over HTTP/1.1, and their control on the same port.

One asyncio process on the bare protocol interface: a request that nothing is scripted for is answered in the callback
that read it, without a task, because benchmarks measure what stands in front of it.
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import json
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl

from tests.support.batch_endpoint.forms import Dialect, as_chat, as_error, as_reply, dialect_of
from tests.support.batch_endpoint.service import BatchService
from tests.support.batch_endpoint.wire import BatchReply, BatchRequest
from tests.support.endpoint_records import Counts, Request, Script
from tests.support.replies import Prompt, read_prompt, text_of, write_reply

RECENT_REQUESTS = 5_000
_CHARACTERS_PER_TOKEN = 4
_HTML = "<html><head><title>Welcome</title></head><body>This is a proxy, not a model.</body></html>"
_PROSE = "I would rather talk about something else."
_REASONS = {200: "OK", 404: "Not Found", 411: "Length Required"}
_SECRET_HEADERS = ("authorization", "api-key", "x-api-key", "cookie")


class State:
    """The scripts, the counts and the gate."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.batches = BatchService(self._answer_line)
        self.start_over()

    def start_over(self) -> None:
        """Forget everything but the connections."""
        self.counts = Counts()
        self.scripts: list[Script] = []
        self.recent: collections.deque[Request] = collections.deque(maxlen=RECENT_REQUESTS)
        self.is_holding = False
        self.hold_containing: str | None = None
        self.waiting: collections.deque[asyncio.Future[None]] = collections.deque()
        self.batches.store.start_over()

    def reset(self) -> None:
        """Forget everything; requests that still wait are cut off, so that their clients do not wait on."""
        for connection in list(self.connections):
            connection.cut_off()
        self.start_over()

    def _answer_line(self, dialect: Dialect, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer a line of a batch as the live interface would; it counts as no call."""
        request, prompt = _read_request(as_chat(dialect, dict(body)), {}, 1 + len(self.batches.store.billed))
        request.dialect, request.lane = dialect, "batch"
        script = self.take_script(request) or Script()
        if script.status != 200:
            return script.status, json.loads(_response_body(request, prompt, script, Counts())[1])
        return 200, as_reply(dialect, _completion(request, prompt, script, Counts()))

    def take_script(self, request: Request) -> Script | None:
        """Return what is scripted for a request and count its use."""
        matching = [script for script in self.scripts if script.matches(request)]
        counted = next((script for script in matching if script.times is not None), None)
        if counted is None:
            return matching[-1] if matching else None
        counted.times = (counted.times or 0) - 1
        if counted.times <= 0:
            self.scripts.remove(counted)
        return counted

    def holds(self, request: Request) -> bool:
        """Return True if a request must wait."""
        return self.is_holding and (self.hold_containing is None or self.hold_containing in request.text)

    def release(self, count: int | None) -> None:
        """Let waiting requests go, the first that came first; without a count all, and those to come."""
        self.is_holding = self.is_holding and count is not None
        while self.waiting and (count is None or count > 0):
            future = self.waiting.popleft()
            if not future.done():
                future.set_result(None)
                count = count if count is None else count - 1


def _completion(request: Request, prompt: Prompt, script: Script, counts: Counts) -> dict[str, Any]:
    content = write_reply(prompt, script.outputs)
    if script.fault == "unparseable":
        content = _PROSE
    if script.content is not None:
        content = script.content.replace("{call}", str(request.call))
        for name, value in request.inputs.items():
            content = content.replace(f"{{{name}}}", value)
    choices = int(request.parameters.get("n") or 1)
    usage = {
        "prompt_tokens": max(1, len(request.text) // _CHARACTERS_PER_TOKEN),
        "completion_tokens": max(1, len(content) // _CHARACTERS_PER_TOKEN) * choices,
    }
    usage["total_tokens"] = sum(usage.values())
    if isinstance(script.usage, dict):
        usage = script.usage
    message = {"role": "assistant", "content": content}
    completion = {
        "id": f"chatcmpl-{request.call}",
        "object": "chat.completion",
        "created": int(request.received_at_seconds),
        "model": request.model,
        "choices": [
            {"index": index, "message": message, "finish_reason": script.finish_reason} for index in range(choices)
        ],
    }
    counts.completions += 1
    if script.usage is not False:
        completion["usage"] = usage
        counts.prompt_tokens += usage.get("prompt_tokens", 0)
        counts.completion_tokens += usage.get("completion_tokens", 0)
    return completion


def _response_body(request: Request, prompt: Prompt, script: Script, counts: Counts) -> tuple[str, str]:
    """The content type and the body."""
    if script.body is not None:
        return "application/json", script.body
    if script.fault == "html":
        return "text/html; charset=utf-8", _HTML
    if script.status != 200:
        code = script.error_code or ""
        message = f"scripted {script.status} {code}".strip()
        return "application/json", json.dumps(as_error(request.dialect, script.status, code, message))
    return "application/json", json.dumps(as_reply(request.dialect, _completion(request, prompt, script, counts)))


def _read_request(body: dict[str, Any], headers: dict[str, str], call: int) -> tuple[Request, Prompt]:
    messages = body.pop("messages", [])
    prompt = read_prompt(messages)
    request = Request(
        call=call,
        model=str(body.get("model", "")),
        text="\n".join(text_of(message) for message in messages),
        inputs=prompt.inputs,
        headers=_without_secrets(headers),
        parameters=body,
        messages=messages,
        received_at_seconds=time.time(),
    )
    return request, prompt


def _events_of(completion: dict[str, Any], script: Script, *, with_usage: bool) -> list[bytes]:
    """The events of a stream: a piece of content each, then the end, then the usage if it was asked for."""
    common = {**completion, "object": "chat.completion.chunk"}
    usage = common.pop("usage", None)
    choice = common.pop("choices")[0]
    content, size = choice["message"]["content"], script.piece_characters
    deltas = [{"content": content[start : start + size]} for start in range(0, len(content), size)]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in [{"role": "assistant"}, *deltas]]
    choices.append({"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]})
    chunks = [{**common, "choices": [each]} for each in choices]
    if with_usage and usage is not None:
        chunks.append({**common, "choices": [], "usage": usage})
    return [*(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks), b"data: [DONE]\n\n"]


def _response_head(status: int, headers: dict[str, str], length: int) -> bytes:
    return _head(status, {"content-length": str(length), **headers})


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Scripted')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _without_secrets(headers: dict[str, str]) -> dict[str, str]:
    def hide(value: str) -> str:
        return f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:16]}"

    return {name: hide(value) if name in _SECRET_HEADERS else value for name, value in headers.items()}


class Connection(asyncio.Protocol):
    """One client's connection: one request at a time, as HTTP/1.1 without pipelining on the client's side."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._buffer = bytearray()
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None] | None = None
        self._is_open_request = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the connection."""
        self._transport = transport
        self._state.connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        """End what was still going on for it."""
        self._state.connections.discard(self)
        self._end_request(is_answered=False)
        if self._task:
            self._task.cancel()

    def cut_off(self) -> None:
        """Close the connection if a request waits on it; an idle one is kept."""
        if self._task:
            self._task.cancel()
            self._end_request(is_answered=False)
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read what came and answer each whole request."""
        self._buffer += data
        while self._task is None and self._read_request():
            pass

    def _read_request(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        request_line, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "transfer-encoding" in headers:
            self._write(411, "text/plain", b"state a content-length")
            self._transport.close()
            return False
        length = int(headers.get("content-length", 0))
        if len(self._buffer) < end + 4 + length:
            if headers.get("expect", "").lower() == "100-continue" and len(self._buffer) == end + 4:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return False
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        method, target, *_ = request_line.split(" ")
        self._dispatch(method, target, headers, body)
        return True

    def _dispatch(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        path, _, query = target.partition("?")
        dialect = dialect_of(method, path)
        if dialect is not None:
            self._chat(headers, as_chat(dialect, json.loads(body), path), dialect)
        elif path.startswith("/control/"):
            answer = _control(self._state, path.removeprefix("/control/"), json.loads(body or b"{}"))
            self._write(200, "application/json", json.dumps(answer).encode())
        elif path in {"/health", "/v1/models"}:
            self._write(200, "application/json", b'{"object": "list", "data": []}')
        else:
            origin = f"http://{headers.get('host')}"
            asked = BatchRequest(method, path, dict(parse_qsl(query)), headers, body, origin)
            self._reply(self._state.batches.answer(asked) or BatchReply(404, b"not found"))

    def _reply(self, reply: BatchReply) -> None:
        """Write the reply of a batch interface."""
        if reply.fault == "disconnect":
            self._transport.close()
            return
        headers = {"content-type": "application/json"} | reply.headers
        self._transport.write(_response_head(reply.status, headers, len(reply.body)))
        if reply.fault == "cut":
            self._transport.write(reply.body[: len(reply.body) // 2])
            self._transport.close()
            return
        self._transport.write(reply.body)

    def _chat(self, headers: dict[str, str], body: dict[str, Any], dialect: Dialect) -> None:
        state = self._state
        counts = state.counts
        counts.calls += 1
        counts.in_flight += 1
        counts.max_in_flight = max(counts.max_in_flight, counts.in_flight)
        self._is_open_request = True
        request, prompt = _read_request(body, headers, counts.calls)
        request.dialect = dialect
        counts.calls_by_model[request.model] = counts.calls_by_model.get(request.model, 0) + 1
        state.recent.append(request)
        script = state.take_script(request)
        streams = bool(body.get("stream"))
        if script is None and not state.holds(request) and not streams:
            content_type, text = _response_body(request, prompt, Script(), counts)
            self._write(200, content_type, text.encode())
            self._end_request(is_answered=True)
            return
        self._task = asyncio.get_running_loop().create_task(self._answer(request, prompt, script or Script()))
        self._task.add_done_callback(self._next_request)

    def _next_request(self, _: asyncio.Task[None]) -> None:
        self._task = None
        if not self._transport.is_closing():
            self.data_received(b"")

    async def _answer(self, request: Request, prompt: Prompt, script: Script) -> None:
        state = self._state
        counts = state.counts
        if state.holds(request):
            future = asyncio.get_running_loop().create_future()
            state.waiting.append(future)
            counts.held += 1
            try:
                await future
            finally:
                counts.held -= 1
        if script.latency_seconds:
            await asyncio.sleep(script.latency_seconds)
        if script.fault == "hang":
            await asyncio.Event().wait()
        if script.fault == "disconnect":
            self._transport.close()
            return
        is_completion = script.status == 200 and script.body is None and script.fault != "html"
        if request.parameters.get("stream") and script.streams and is_completion:
            await self._stream(request, _completion(request, prompt, script, counts), script)
            return
        content_type, text = _response_body(request, prompt, script, counts)
        body = text.encode()
        headers = {"content-type": content_type} | {name.lower(): value for name, value in script.headers.items()}
        self._transport.write(_response_head(script.status, headers, len(body)))
        if script.fault == "cut":
            self._transport.write(body[: len(body) // 2])
            self._transport.close()
            return
        if script.fault == "trickle":
            for byte in body:
                self._transport.write(bytes([byte]))
                await asyncio.sleep(script.trickle_interval_seconds)
        else:
            self._transport.write(body)
        self._end_request(is_answered=True)

    async def _stream(self, request: Request, completion: dict[str, Any], script: Script) -> None:
        asks_for_usage = bool((request.parameters.get("stream_options") or {}).get("include_usage"))
        events = _events_of(completion, script, with_usage=asks_for_usage)
        drop_after = len(events) // 2 if script.fault == "cut" else script.drop_after_pieces
        headers = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        headers |= {name.lower(): value for name, value in script.headers.items()}
        self._transport.write(_head(script.status, headers))
        for number, event in enumerate(events):
            if number == drop_after:
                self._transport.close()
                return
            self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            if script.piece_interval_seconds:
                await asyncio.sleep(script.piece_interval_seconds)
        if drop_after is not None:
            self._transport.close()
            return
        self._transport.write(b"0\r\n\r\n")
        self._end_request(is_answered=True)

    def _write(self, status: int, content_type: str, body: bytes) -> None:
        self._transport.write(_response_head(status, {"content-type": content_type}, len(body)) + body)

    def _end_request(self, *, is_answered: bool) -> None:
        if self._is_open_request:
            self._is_open_request = False
            counts = self._state.counts
            counts.in_flight -= 1
            counts.answered += is_answered
            counts.abandoned += not is_answered


def _control(state: State, action: str, arguments: dict[str, Any]) -> Any:
    if action.startswith("batches/"):
        live_tokens = (state.counts.prompt_tokens, state.counts.completion_tokens)
        return state.batches.control(action.removeprefix("batches/"), arguments, live_tokens)
    match action:
        case "script":
            state.scripts.append(Script(**arguments))
        case "clear":
            state.scripts.clear()
        case "hold":
            state.is_holding = True
            state.hold_containing = arguments.get("containing")
        case "release":
            state.release(arguments.get("count"))
        case "reset":
            state.reset()
        case "requests":
            return [asdict(request) for request in state.recent]
        case "counts":
            return asdict(state.counts)
        case _:
            return {"error": f"there is no control/{action}"}
    return {}


async def serve(port: int, announce: Callable[[str], object]) -> None:
    """Serve on a loopback port until SIGTERM or SIGINT.

    Args:
        port: The port; 0 takes a free one.
        announce: Called with the URL once it accepts connections.
    """
    loop = asyncio.get_running_loop()
    state = State()
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", port, backlog=1024)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    announce(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    await stopped.wait()
    server.close()
