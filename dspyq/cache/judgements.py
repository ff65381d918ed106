"""Judgements of answers by their callers: counted once for each call in its variant's statistics, and kept with it."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, cast

from dspyq.core.tolerated import read_number
from dspyq.errors import InvalidOption
from dspyq.store.clients import jobs_client, redis_errors
from dspyq.store.content import Kind, UnreadableContent, decode, encode
from dspyq.store.keys import judgements_key
from dspyq.store.scripts import load_script, read_hash

JudgementOutcome = Literal["new", "same", "kept", "full"]

#: Names of judgements become fields of a variant's statistics, which have no end.
MOST_NAMES = 20
MOST_VALUE = 1_000
NAME_PATTERN = "^[A-Za-z0-9_-]{1,64}$"
_NAME = re.compile(NAME_PATTERN.strip("^$"))
_PARTS = 1_000_000
_VALUE, _COMMENT = b"value:", b"comment:"


class Judgement(NamedTuple):
    """A judgement of an answer, as its caller finds it.

    Attributes:
        name: Its name.
        value: Its value.
        comment: The caller's own words; None for none.
    """

    name: str
    value: float
    comment: str | None = None


def count_judgement(
    queue: str, call_id: str, judgement: Judgement, seconds_kept: int, tenant: str = ""
) -> JudgementOutcome:
    """Count a judgement in a variant's statistics, and keep it with its call.

    Args:
        queue: The variant's queue.
        call_id: The call.
        judgement: The judgement.
        seconds_kept: How long it is remembered.
        tenant: The caller's tenant, with whose key the comment is sealed; empty for none.

    Returns:
        ``new``; ``same`` or ``kept`` if the call has one of this name, of this value or of another; ``full`` if its
            name is new, and the variant's answers are judged under the most names already.

    Raises:
        InvalidOption: If it has no name that statistics can have, or another number than they take.
        RedisUnavailable: If Redis does not answer.
    """
    name, value, comment = judgement
    if not _NAME.fullmatch(name):
        raise InvalidOption("a judgement's name has 1 to 64 letters, digits, dashes and underscores")
    if not -MOST_VALUE <= value <= MOST_VALUE:
        raise InvalidOption(f"the value of a judgement is a number from -{MOST_VALUE:,} to {MOST_VALUE:,}")
    with redis_errors("count the judgement"):
        outcome = load_script(jobs_client(), "dspyq.cache", "judge")(
            (judgements_key(call_id),),
            queue=queue,
            name=name,
            value=round(value * _PARTS),
            comment=_sealed(call_id, comment, tenant),
            tenant=tenant,
            seconds=seconds_kept,
            most_names=MOST_NAMES,
        )
    return cast("JudgementOutcome", outcome.decode())


def keep_judgement(call_id: str, judgement: Judgement, seconds_kept: int, tenant: str = "") -> None:
    """Keep a judgement that an experiment has counted with its call, in place of an earlier one of its name.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("keep the judgement"):
        load_script(jobs_client(), "dspyq.cache", "keep_judgement")(
            (judgements_key(call_id),),
            name=judgement.name,
            value=round(judgement.value * _PARTS),
            comment=_sealed(call_id, judgement.comment, tenant),
            tenant=tenant,
            seconds=seconds_kept,
        )


def read_judgements(call_id: str) -> list[Judgement]:
    """Return the judgements of a call, by name.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("read the judgements"):
        found = read_hash(jobs_client().hgetall(judgements_key(call_id)))
    return [
        Judgement(name.decode(), read_number(value) / _PARTS, _opened(call_id, found.get(_COMMENT + name)))
        for field, value in sorted(found.items())
        if (name := field.removeprefix(_VALUE)) != field
    ]


def _sealed(call_id: str, comment: str | None, tenant: str) -> bytes:
    return b"" if comment is None else encode(Kind.COMMENT, call_id, comment.encode(), tenant=tenant)


def _opened(call_id: str, stored: bytes | None) -> str | None:
    if stored is None:
        return None
    try:
        return decode(Kind.COMMENT, call_id, stored).decode()
    except (UnreadableContent, UnicodeDecodeError):
        return None
