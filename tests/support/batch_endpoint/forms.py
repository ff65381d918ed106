"""Requests and replies of Anthropic and Gemini as those of OpenAI's chat, and back: one answer for all."""

from __future__ import annotations

import re
from typing import Any, Literal

Dialect = Literal["openai", "anthropic", "gemini"]

_STATUS_NAMES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    409: "ABORTED", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_RPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 10, 429: 8, 500: 13, 503: 14, 504: 4}
_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error", 529: "overloaded_error",
}  # fmt: skip
_GEMINI_PATH = re.compile(r"/models/(?P<model>[^/:]+):(?P<action>\w+)$")


def dialect_of(method: str, path: str) -> Dialect | None:
    """Return the form of a live chat request; None if it is none."""
    if method != "POST":
        return None
    if path.endswith("/chat/completions"):
        return "openai"
    if path.endswith("/messages"):
        return "anthropic"
    found = _GEMINI_PATH.search(path)
    return "gemini" if found and found["action"] == "generateContent" else None


def as_chat(dialect: Dialect, body: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return a request's body in the form of OpenAI's chat."""
    if dialect == "openai":
        return body
    if dialect == "anthropic":
        system = _texts(body.pop("system", None))
        messages = [{"role": each["role"], "content": _texts(each["content"])} for each in body.pop("messages", ())]
        return {**body, "messages": ([{"role": "system", "content": system}] if system else []) + messages}
    found = _GEMINI_PATH.search(path)
    model = found["model"] if found else str(body.get("model", "")).removeprefix("models/")
    system = _texts(body.pop("systemInstruction", body.pop("system_instruction", {})).get("parts"))
    roles = {"model": "assistant"}
    messages = [
        {"role": roles.get(each.get("role"), "user"), "content": _texts(each.get("parts"))}
        for each in body.pop("contents", ())
    ]
    return {**body, "model": model, "messages": ([{"role": "system", "content": system}] if system else []) + messages}


def as_reply(dialect: Dialect, completion: dict[str, Any]) -> dict[str, Any]:
    """Return a completion in the form of another provider's reply."""
    if dialect == "openai":
        return completion
    text = completion["choices"][0]["message"]["content"]
    is_cut = completion["choices"][0]["finish_reason"] == "length"
    usage = completion.get("usage")
    if dialect == "anthropic":
        reply = {
            "id": completion["id"].replace("chatcmpl-", "msg_"),
            "type": "message",
            "role": "assistant",
            "model": completion["model"],
            "content": [{"type": "text", "text": text}],
            "stop_reason": "max_tokens" if is_cut else "end_turn",
            "stop_sequence": None,
        }
        counts = ("input_tokens", "output_tokens")
        return reply | ({} if usage is None else {"usage": dict(zip(counts, _counts(usage), strict=True))})
    reply = {
        "candidates": [
            {
                "content": {"role": "model", "parts": [{"text": text}]},
                "finishReason": "MAX_TOKENS" if is_cut else "STOP",
            }
        ],
        "modelVersion": completion["model"],
    }
    names = ("promptTokenCount", "candidatesTokenCount")
    if usage is not None:
        reply["usageMetadata"] = dict(zip(names, _counts(usage), strict=True)) | {
            "totalTokenCount": sum(_counts(usage))
        }
    return reply


def as_error(dialect: Dialect, status: int, code: str, message: str) -> dict[str, Any]:
    """Return an error's body in a provider's form."""
    if dialect == "openai":
        return {"error": {"message": message, "type": code or "error", "code": code or None, "param": None}}
    if dialect == "anthropic":
        return {"type": "error", "error": {"type": code or _TYPES.get(status, "api_error"), "message": message}}
    return {"error": {"code": status, "message": message, "status": code or _STATUS_NAMES.get(status, "UNKNOWN")}}


def as_rpc_status(status: int, message: str) -> dict[str, Any]:
    """Return an error as a google.rpc.Status, as Gemini writes it for a line."""
    return {"code": _RPC_CODES.get(status, 2), "message": message}


def tokens_of(reply: dict[str, Any] | None) -> tuple[int, int]:
    """Return the tokens of prompt and completion that a reply of any form states; 0 without a usage."""
    usage = (reply or {}).get("usage") or (reply or {}).get("usageMetadata") or {}
    names = (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens"))
    for prompt, completion in (*names, ("promptTokenCount", "candidatesTokenCount")):
        if prompt in usage or completion in usage:
            return usage.get(prompt, 0), usage.get(completion, 0)
    return 0, 0


def _counts(usage: dict[str, int]) -> tuple[int, int]:
    return usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)


def _texts(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or () if isinstance(part, dict))
