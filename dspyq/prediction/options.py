"""Options of predictions."""

from __future__ import annotations

from typing import TypedDict


class RowOptions(TypedDict, total=False):
    """Options of many predictions that each of them has.

    Attributes:
        program: The program's name; may be left out where there is one.
        variant: A variant to force; else the unit's.
        unit: What the variant is assigned to, such as a user's id; the inputs where left out.
        refresh: Whether to skip the cache.
        tenant: The tenant of the calls; none where left out.
    """

    program: str | None
    variant: str | None
    unit: object
    refresh: bool
    tenant: str | None


class PredictOptions(RowOptions, total=False):
    """Options of one prediction.

    Attributes:
        request_id: The caller's id; where left out, that of the request the code works for, or a random one.
        stream: Whether its text is streamed, for ``job.stream()``.
    """

    request_id: str | None
    stream: bool


class ManyOptions(RowOptions, total=False):
    """Options of many predictions.

    Attributes:
        priority: Their turn, 0 (most urgent) to 9.
    """

    priority: int


PREDICT_OPTIONS = frozenset(PredictOptions.__annotations__)
MANY_OPTIONS = frozenset(ManyOptions.__annotations__)
