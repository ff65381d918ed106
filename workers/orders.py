"""An agent with tools."""

from __future__ import annotations

import dspy

#: In place of a shop's database. Tools run in worker threads, many at once: share nothing that changes.
_ORDERS = {
    "1001": "two lamps, shipped on 2 March",
    "1002": "a coffee grinder, waiting for payment",
    "1003": "a bicycle, delivered on 27 February",
}


def find_order(number: str) -> str:
    """Return what is known of an order."""
    return _ORDERS.get(number.strip().removeprefix("#"), "there is no such order")


def opening_hours(day: str) -> str:
    """Return when the shop is open on a day of the week."""
    return "closed" if day.strip().lower() == "sunday" else "9:00 to 18:00"


class Orders(dspy.Module):
    """Answers questions about orders with the help of tools."""

    def __init__(self) -> None:
        super().__init__()
        self.agent = dspy.ReAct("question -> answer", tools=[find_order, opening_hours], max_iters=4)

    def forward(self, question: str) -> dspy.Prediction:
        """Return the answer to a question about an order."""
        return self.agent(question=question)
