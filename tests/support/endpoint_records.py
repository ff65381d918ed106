"""Scripts, requests and counts of the endpoint, as its server and the tests both see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.batch_endpoint.forms import Dialect

Fault = Literal["hang", "trickle", "cut", "disconnect", "html", "unparseable"]


@dataclass
class Script:
    """The reply to some requests.

    Counted scripts are used up first, in their order; then the latest uncounted one that matches holds for all.

    Attributes:
        times: How many requests it answers; all, where left out.
        containing: Only prompts that contain this text.
        model: Only requests for this model.
        lane: Only ``live`` requests, or only lines of a ``batch``; status, content and usage apply to lines too.
        latency_seconds: How long to wait before the first byte.
        status: The HTTP status; other than 200 the body is an error as OpenAI writes it.
        error_code: The ``code`` and ``type`` of that error, as in ``insufficient_quota``.
        headers: Further response headers, as in ``{"retry-after": "2"}``.
        body: The whole response body, in place of a completion or an error.
        content: The completion's content; ``{<input field>}`` and ``{call}`` in it are replaced.
        outputs: Values of output fields, written in the notation the prompt asks for.
        usage: False leaves the usage out; a table replaces the counted one.
        finish_reason: Why the completion ended, as in ``length``.
        fault: ``hang`` never answers; ``trickle`` sends a byte per interval; ``cut`` closes after half the body;
            ``disconnect`` closes without a byte; ``html`` is a 200 that is no JSON; ``unparseable`` is a completion
            without the fields asked for.
        trickle_interval_seconds: The pause between two bytes of a trickle.
        piece_characters: Of a stream: the characters of content in each event.
        piece_interval_seconds: Of a stream: the pause between two events.
        drop_after_pieces: Of a stream: how many events it has before the connection is closed; all of them and no end
            where it has fewer.
        streams: False answers a request for a stream with a whole completion, as some servers do.
    """

    times: int | None = None
    containing: str | None = None
    model: str | None = None
    lane: Literal["live", "batch"] | None = None
    latency_seconds: float = 0.0
    status: int = 200
    error_code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    content: str | None = None
    outputs: dict[str, Any] | None = None
    usage: bool | dict[str, int] = True
    finish_reason: str = "stop"
    fault: Fault | None = None
    trickle_interval_seconds: float = 0.05
    piece_characters: int = 4
    piece_interval_seconds: float = 0.0
    drop_after_pieces: int | None = None
    streams: bool = True

    def matches(self, request: Request) -> bool:
        """Return True if it is for this request."""
        is_meant = self.model in {None, request.model} and self.lane in {None, request.lane}
        return is_meant and (self.containing is None or self.containing in request.text)


@dataclass
class Request:
    """One chat request, as tests see it.

    Attributes:
        call: Its ordinal since the last reset, from 1.
        model: The model asked for.
        text: All messages' text.
        inputs: The prompt's input fields.
        headers: The request headers; secrets are replaced by their hash.
        parameters: The request's body without its messages.
        messages: The messages.
        received_at_seconds: When it was read, on the wall clock.
        dialect: Whose form it has.
        lane: ``live``, or ``batch`` of a line.
    """

    call: int
    model: str
    text: str
    inputs: dict[str, str]
    headers: dict[str, str]
    parameters: dict[str, Any]
    messages: list[dict[str, Any]]
    received_at_seconds: float
    dialect: Dialect = "openai"
    lane: Literal["live", "batch"] = "live"


@dataclass
class Counts:
    """The events since the last reset.

    Attributes:
        calls: Chat requests read.
        in_flight: Those not answered yet, held ones included.
        max_in_flight: The most at once.
        held: Those waiting for a release.
        answered: Those whose response was written whole, whatever its status.
        abandoned: Those whose client left, or was cut off, before that.
        prompt_tokens: Billed in completions.
        completion_tokens: Billed in completions.
        completions: Chat requests answered by a completion, whole or cut: what a provider bills.
        calls_by_model: Chat requests by model.
    """

    calls: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    held: int = 0
    answered: int = 0
    abandoned: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    completions: int = 0
    calls_by_model: dict[str, int] = field(default_factory=dict)
