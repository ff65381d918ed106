"""Replies in the form of OpenAI's chat completions: completions, their chunks, and errors."""

from __future__ import annotations

from typing import Any, NamedTuple

from dspyq.prediction.prediction import Metadata
from dspyq.serve.predictions.rendering import PublicCall
from dspyq.serve.problems import Problem, ProblemKind

CANCELLED = ProblemKind(409, "cancelled", "The prediction was cancelled")
_SERVER_ERRORS = 500
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {"unknown-program": "model_not_found", "unknown-variant": "model_not_found"}


class ChatReply(NamedTuple):
    """Properties that all parts of one reply have in common.

    Attributes:
        public: The call.
        model: The model, as the client named it.
    """

    public: PublicCall
    model: str

    def completion(self, text: str, metadata: Metadata) -> dict[str, Any]:
        """Return a whole completion."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(metadata)}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(metadata)}

    def chunk(self, delta: dict[str, Any], finished: str | None = None) -> dict[str, Any]:
        """Return a chunk of a stream.

        Args:
            delta: What it adds to the message.
            finished: The reason for which the message ends with it; None where it goes on.
        """
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finished}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def usage_chunk(self, metadata: Metadata) -> dict[str, Any]:
        """Return the chunk with the usage, which comes last."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(metadata)}

    def _head(self, kind: str) -> dict[str, Any]:
        created = self.public.call.created_ms // 1000
        return {"id": self.public.public_id, "object": kind, "created": created, "model": self.model}


def usage(metadata: Metadata) -> dict[str, int]:
    """Return the tokens of an answer."""
    found = metadata.usage
    return {
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.completion_tokens,
        "total_tokens": found.total_tokens,
    }


def finish_reason(metadata: Metadata) -> str:
    """Return the reason for which an answer ended."""
    return "length" if metadata.is_truncated else "stop"


def error_of(problem: Problem) -> dict[str, Any]:
    """Return a problem as OpenAI states errors."""
    kind = problem.kind
    details = [f"{pointer}: {detail}" for pointer, detail in problem.faults]
    default = "server_error" if kind.status >= _SERVER_ERRORS else "invalid_request_error"
    return {
        "error": {
            "message": "; ".join([problem.detail or kind.title, *details]),
            "type": _TYPES.get(kind.status, default),
            "code": _CODES.get(kind.slug, kind.slug.replace("-", "_")),
            "param": problem.parameter or None,
        }
    }
