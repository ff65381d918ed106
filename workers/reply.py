"""A program of a class, with a saved state."""

from __future__ import annotations

import dspy


class WriteReply(dspy.Signature):
    """Answer a customer's ticket in at most three sentences."""

    ticket: str = dspy.InputField()
    tone: str = dspy.InputField()
    reply: str = dspy.OutputField()


class Reply(dspy.Module):
    """Writes a reply; demonstrations come from ``config/reply.json``."""

    def __init__(self) -> None:
        super().__init__()
        self.write = dspy.ChainOfThought(WriteReply)

    def forward(self, ticket: str, tone: str) -> dspy.Prediction:
        """Return the reply to a ticket."""
        return self.write(ticket=ticket, tone=tone)
