"""Adapter for very small models: only the inputs, the instructions and the names of the outputs.

DSPy's own adapters explain a format in some hundred tokens, which a model of 135 million parameters answers at random.
It needs an endpoint that takes a JSON schema (``structured_outputs = true``): the schema, not the prompt, makes the
reply parse.
"""

from __future__ import annotations

from typing import Any

from dspy.adapters.json_adapter import JSONAdapter
from dspy.signatures.signature import Signature


class ShortPromptAdapter(JSONAdapter):  # type: ignore[misc]  # dspy ships no types
    """DSPy's JSON adapter with a prompt of a few lines."""

    def format(
        self, signature: type[Signature], demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Return the messages: an exchange for each demonstration, then the question."""
        messages = []
        for demo in demos:
            messages.append({"role": "user", "content": _question(signature, demo)})
            answer = self.format_assistant_message_content(signature, demo)
            messages.append({"role": "assistant", "content": answer})
        return [*messages, {"role": "user", "content": _question(signature, inputs)}]


def _question(signature: type[Signature], values: dict[str, Any]) -> str:
    fields = "\n".join(f"{name}: {values[name]}" for name in signature.input_fields if name in values)
    outputs = ", ".join(signature.output_fields)
    return f"{fields}\n\n{signature.instructions} Answer as JSON with {outputs}."
