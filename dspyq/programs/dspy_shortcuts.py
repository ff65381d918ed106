"""Shorter ways to what DSPy computes on each call.

Each leaves what is unusual to DSPy's own function. All of it patches private parts of DSPy. Therefore the range of
DSPy's versions is narrow, and ``tests/programs/test_dspy_shortcuts.py`` compares each shortcut with plain DSPy.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import dspy
import orjson
from dspy._vendor.lm15 import serde
from dspy.adapters import decision
from dspy.adapters.decision_state import DecisionState
from dspy.adapters.types.decision import Choice, Noul, Score
from dspy.clients import execution
from dspy.predict import predict

#: Bound for programs that make a new signature on each call.
_MOST_KEPT = 64
_NUMBERS = frozenset({int, float, bool})
_TEXTS_AND_CONTAINERS = frozenset({str, list, dict})

plain_clean_mapping = serde._clean_mapping  # noqa: SLF001 - DSPy has no public way
plain_check_encodable = execution._check_encodable  # noqa: SLF001 - as above
plain_resolve_adapter = decision.resolve_adapter


def take_shortcuts() -> None:
    """Patch DSPy with all of them; again without effect."""
    serde._clean_mapping = clean_mapping  # noqa: SLF001 - as above
    execution._check_encodable = check_encodable  # noqa: SLF001 - as above
    predict.resolve_adapter = resolve_adapter


def clean_mapping(values: dict[str, Any]) -> dict[str, Any]:
    """Drop empty fields, without five comparisons for each."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        kind = type(value)
        if value is None:
            continue
        if kind in _TEXTS_AND_CONTAINERS:
            if value:
                kept[name] = value
        elif kind in _NUMBERS:
            kept[name] = value
        elif kind is tuple:
            if value:
                kept[name] = list(value)
        else:
            kept |= plain_clean_mapping({name: value})
    return kept


def check_encodable(value: Any, where: str) -> None:
    """Refuse half of a surrogate pair, which orjson refuses too: at once, where DSPy looks at each part."""
    try:
        orjson.dumps(value)
    except TypeError:  # or another value that is no JSON
        plain_check_encodable(value, where)


def resolve_adapter(
    lm: Any, adapter: Any, signature: type[dspy.Signature], fields: Any, declared_signature: Any = None
) -> Any:
    """Return the adapter itself for a signature without decisions, which are looked for once."""
    if fields == {} and getattr(lm, "supports_decision_requests", False) is not True and _has_no_decision(signature):  # type: ignore[arg-type]  # mypy takes classes for unhashable
        return adapter
    return plain_resolve_adapter(lm, adapter, signature, fields, declared_signature)


@lru_cache(_MOST_KEPT)
def _has_no_decision(signature: type[dspy.Signature]) -> bool:
    return not DecisionState(signature, {}).types and not any(
        kind.extract_custom_type_from_annotation(field.rebuild_annotation())
        for field in signature.output_fields.values()
        for kind in (Noul, Choice, Score)
    )
