"""Caches for results that DSPy computes anew on each call although they stay the same.

All of it patches private parts of DSPy. Therefore the range of DSPy's versions is narrow, and
``tests/programs/test_dspy_memo.py`` compares each cache with plain DSPy.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import dspy
from dspy.adapters import utils
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.signatures.signature import SignatureMeta
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

#: Bound for programs that make a new signature or type on each call.
_MOST_KEPT = 64
#: An adapter's methods whose text depends on the signature alone.
_TEXTS = ("format_system_message", "user_message_output_requirements")


def cache_signature_texts(adapter: dspy.Adapter) -> None:
    """Cache the texts of a signature in DSPy's own adapters; a user's adapter may vary them."""
    if not type(adapter).__module__.startswith("dspy."):
        return
    for name in _TEXTS:
        if (write := getattr(adapter, name, None)) is not None:
            setattr(adapter, name, lru_cache(_MOST_KEPT)(write))


def cache_fields() -> None:
    """Cache the input and output fields of signatures: DSPy filters them anew eighteen times in one call."""
    SignatureMeta._get_fields_with_type = _fields_of_kind  # noqa: SLF001 - DSPy has no public way


def cache_routes(engine: LM15Engine) -> None:
    """Cache an engine's resolution of a model's route."""
    engine.resolve = lru_cache(_MOST_KEPT)(engine.resolve)


def cache_type_adapters() -> None:
    """Cache DSPy's type adapters of classes; those of other annotations are still built each time."""
    utils.TypeAdapter = _type_adapter


def _fields_of_kind(cls: type[dspy.Signature], field_type: str) -> dict[str, FieldInfo]:
    kept = _find_fields(cls, field_type)  # type: ignore[arg-type]  # mypy takes classes for unhashable
    return kept.copy()  # some callers change what they get


_plain_fields = SignatureMeta._get_fields_with_type  # noqa: SLF001 - as above


@lru_cache(_MOST_KEPT)
def _find_fields(signature: type[dspy.Signature], kind: str) -> dict[str, FieldInfo]:
    fields: dict[str, FieldInfo] = _plain_fields(signature, kind)
    return fields


def _type_adapter(annotation: Any) -> TypeAdapter[Any]:
    # Classes alone: two annotations may be equal and mean different things, as unions in another order.
    return _of_class(annotation) if isinstance(annotation, type) else TypeAdapter(annotation)


@lru_cache(_MOST_KEPT)
def _of_class(class_: type) -> TypeAdapter[Any]:
    return TypeAdapter(class_)
