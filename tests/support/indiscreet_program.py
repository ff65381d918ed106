"""A user's program that writes its input to every place a program can write to."""

from __future__ import annotations

import threading
import warnings
from typing import Any, NoReturn

import dspy


class Indiscreet(dspy.Module):
    """Prints the question, warns of it and raises it, in its own thread and in another."""

    def forward(self, question: str) -> NoReturn:
        """Fail."""
        print(question)  # noqa: T201 - what it is for
        warnings.warn(question, stacklevel=1)
        thread = threading.Thread(target=_raise, args=(question,))
        thread.start()
        thread.join()
        _raise(question)


def _raise(question: str) -> Any:
    raise ValueError(question)
