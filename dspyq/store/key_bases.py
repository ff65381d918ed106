"""Kinds of keys, and their starts: the setting ``key_prefix``, behind the tag of a slot in a cluster."""

from __future__ import annotations

from typing import Literal, NamedTuple

from dspyq.config.settings import get_settings
from dspyq.core.redis_address import Address, parse_address
from dspyq.core.runtime import per_runtime
from dspyq.store.spines import NoSpine, jobs_url

#: Every key of ours begins with it, behind the deployment's own prefix; results keep Celery's.
NAMESPACE = "dspy:v1:"


Side = Literal["spine", "money"]


class KeyKind(NamedTuple):
    """Keys of one kind.

    Attributes:
        name: Their name in Lua.
        start: The start of each, and all of it where there is one; behind the prefix and the namespace.
        side: ``spine`` or ``money``.
        namespace: The namespace; empty for keys that Celery and kombu name.
    """

    name: str
    start: str
    side: Side
    namespace: str = NAMESPACE


class Bases:
    """Starts of all keys, read once: keys are built for each question.

    Attributes:
        is_one: Whether both sides have the same.
        money: That of what the fleet has once.
    """

    __slots__ = ("_spine", "is_one", "money")

    def __init__(self, spine: str | None, money: str) -> None:
        self._spine = spine
        self.money = money
        self.is_one = spine == money

    @property
    def spine(self) -> str:
        """That of the active spine."""
        if self._spine is None:
            raise NoSpine("several spines of a cluster, and none is active: wrap this in on_spine(…) or each_spine()")
        return self._spine


@per_runtime(is_kept=True, is_of_part=True)
def bases() -> Bases:
    """Return the starts of keys of the active spine, and of what the fleet has once."""
    settings = get_settings()
    money = f"{parse_address(settings.home_url).tag}{settings.key_prefix}"
    if not parse_address(settings.jobs_url).spines:
        return Bases(settings.key_prefix, money)
    try:
        return Bases(f"{parse_address(jobs_url()).tag}{settings.key_prefix}", money)
    except NoSpine:  # and the keys of money can be built all the same
        return Bases(None, money)


def key_base() -> str:
    """Return what every key of the active spine begins with.

    Raises:
        NoSpine: If the spines are those of a cluster and none is active.
    """
    return bases().spine


def money_base() -> str:
    """Return what every key begins with of what the fleet has once."""
    return bases().money


def slot_key(address: Address) -> str:
    """Return the key of a cluster's slot that holds nothing: connections ask for it, and scripts declare it."""
    return f"{address.tag}{get_settings().key_prefix}{NAMESPACE}slot"
