"""Requests of the three providers' forms, and headers that name an account; imports nothing of the tests' own."""

from __future__ import annotations

import json
from typing import Any

KEY = "key-of-the-provider"
DIALECTS = {"openai": "openai-chat", "anthropic": "anthropic", "gemini": "gemini"}
HEADERS: dict[str, tuple[tuple[str, str], ...]] = {
    "openai": (("authorization", f"Bearer {KEY}"),),
    "anthropic": (("x-api-key", KEY), ("anthropic-version", "2023-06-01")),
    "gemini": (("x-goog-api-key", KEY),),
}


def body_of(protocol: str, question: str) -> bytes:
    """Return the body of a live request."""
    if protocol == "gemini":
        return json.dumps({"contents": [{"role": "user", "parts": [{"text": question}]}]}).encode()
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": question}]}
    return json.dumps(body | ({"max_tokens": 100} if protocol == "anthropic" else {})).encode()
