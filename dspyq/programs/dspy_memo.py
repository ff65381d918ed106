"""What DSPy works out anew for each call though it comes out the same; here it is worked out once.

All of it touches the inside of DSPy, which is why its version is pinned, and ``tests/programs/test_dspy_memo.py``
compares each with what DSPy does by itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import dspy
from dspy.adapters import utils
from dspy.clients.engines.lm15_engine import LM15Engine
from pydantic import TypeAdapter

#: Programs that make a signature, or a type, for each call shall not have all of them kept.
_MOST_KEPT = 64
#: What an adapter says of a signature, whatever the inputs are.
_TEXTS = ("format_system_message", "user_message_output_requirements")


def texts_of_signatures(adapter: dspy.Adapter) -> None:
    """Have one of DSPy's own adapters write what it says of a signature once; a user's may say what it likes."""
    if not type(adapter).__module__.startswith("dspy."):
        return
    for name in _TEXTS:
        if (write := getattr(adapter, name, None)) is not None:
            setattr(adapter, name, lru_cache(_MOST_KEPT)(write))


def routes(engine: LM15Engine) -> None:
    """Have an engine find the way to a model once."""
    engine.resolve = lru_cache(_MOST_KEPT)(engine.resolve)


def type_adapters() -> None:
    """Have DSPy build what turns a class's values into JSON once; other annotations it goes on building each time."""
    utils.TypeAdapter = _type_adapter


def _type_adapter(annotation: Any) -> TypeAdapter[Any]:
    # Classes alone: two annotations may be equal and mean different things, as unions in another order.
    return _of_class(annotation) if isinstance(annotation, type) else TypeAdapter(annotation)


@lru_cache(_MOST_KEPT)
def _of_class(class_: type) -> TypeAdapter[Any]:
    return TypeAdapter(class_)
