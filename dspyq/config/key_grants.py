"""The rights and limits of a key of the API, as a command states them, and as the configuration file does."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, Field, PositiveInt, StringConstraints

from dspyq.config.forms import form
from dspyq.config.models import Table
from dspyq.config.tenant_name import TenantName
from dspyq.core.address import check_network, check_origin

Right = Literal["predict", "stream", "batch", "feedback", "usage", "refresh", "variant"]
ALL_RIGHTS: Final[tuple[Right, ...]] = Right.__args__  # type: ignore[attr-defined]  # typing has no public way to list them
#: What lets a caller spend past the cache, or leave an experiment, is granted by name only.
USUAL_RIGHTS: Final[tuple[Right, ...]] = ("predict", "stream", "batch", "feedback", "usage")
LEAST_URGENT: Final = 9
#: A name of a program or a variant, in which ``*`` stands for any characters.
Pattern = Annotated[
    str, StringConstraints(pattern=form(r"^[A-Za-z0-9_*-]{1,64}$", "use up to 64 letters, digits, -, _ and *"))
]
_MOST_RATE = 1_000_000.0


class KeyGrant(Table):
    """The rights and limits of a key.

    Attributes:
        programs: Programs that it may ask, where ``*`` stands for any characters; all by default.
        variants: Variants that it may force; all by default, where it has the right ``variant``.
        priority: The most urgent priority of its predictions, 0 (most urgent) to 9.
        can: What it may do: ``predict``, ``stream``, ``batch``, ``feedback``, ``usage``, and only where they are named
            ``refresh``, past the cache, and ``variant``, past the split of an experiment.
        origins: Origins of the pages that may use it; any by default. Programs that are no browsers state what they
            like.
        networks: Addresses and networks of the clients that may use it; any by default.
        rate: Requests a second, over all servers; no limit by default.
        burst: How many of them may come at once; those of a second by default.
        most_waiting: The most of its requests that wait in one server process; no limit of its own by default.
    """

    programs: tuple[Pattern, ...] | None = None
    variants: tuple[Pattern, ...] | None = None
    priority: Annotated[int, Field(ge=0, le=LEAST_URGENT)] = 0
    can: tuple[Right, ...] = USUAL_RIGHTS
    origins: tuple[Annotated[str, AfterValidator(check_origin)], ...] = ()
    networks: tuple[Annotated[str, AfterValidator(check_network)], ...] = ()
    rate: Annotated[float, Field(gt=0, le=_MOST_RATE, allow_inf_nan=False)] | None = None
    burst: PositiveInt | None = None
    most_waiting: PositiveInt | None = None

    @property
    def rights(self) -> frozenset[Right]:
        """Its rights; a key with variants has the right to force those."""
        return frozenset((*self.can, "variant") if self.variants is not None else self.can)

    @property
    def burst_requests(self) -> int:
        """The most requests that come at once, where there is a rate."""
        return self.burst or max(1, math.ceil(self.rate or 1))


class StatedKey(KeyGrant):
    """``[serve.keys.<name>]``: a key that the file states by its hash, with the rights and limits of ``KeyGrant``.

    Attributes:
        sha256: The hash of the key, as ``dspyq keys hash`` prints it.
        tenant: The tenant that it belongs to.
        expires_at: When it expires, with a time zone, as in ``2027-01-31T00:00:00Z``; never where left out.
    """

    sha256: Annotated[
        str,
        StringConstraints(
            pattern=form(r"^[0-9a-f]{64}$", "state the 64 hexadecimal digits that dspyq keys hash prints")
        ),
    ]
    tenant: TenantName
    expires_at: AwareDatetime | None = None


def matching(patterns: Iterable[str] | None, names: Iterable[str]) -> frozenset[str] | None:
    """Return the names that any of the patterns matches; None for no patterns, which match all."""
    if patterns is None:
        return None
    found = re.compile("|".join(re.escape(each).replace(r"\*", ".*") for each in patterns) or "(?!)")
    return frozenset(name for name in names if found.fullmatch(name))
