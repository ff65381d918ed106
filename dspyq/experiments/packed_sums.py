"""Arrays and hashes of counters of an experiment, added up over all spines."""

from __future__ import annotations

import itertools
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import cast

from dspyq.core.tolerated import read_number
from dspyq.errors import DamagedKey
from dspyq.experiments.placement import CELLS
from dspyq.experiments.state import ExperimentState
from dspyq.experiments.sums import COUNTER_BYTES
from dspyq.store.clients import jobs_client
from dspyq.store.keys import experiment_sums_key
from dspyq.store.scripts import read_hash
from dspyq.store.spines import each_spine, process_spines

#: Start of the name of an arm's bitmap, as sums.lua has it; no array's name begins so.
UNITS_OF_ARM = "seen::"
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


def read_arrays(state: ExperimentState, names: Sequence[str], *, is_strict: bool = False) -> list[bytes | None]:
    """Return arrays of signed 64-bit counters as Redis packs them; None where no spine has the array.

    Args:
        state: The experiment.
        names: What comes in each array's key behind ``experiment_sums_key``.
        is_strict: Whether a key of another type is an error; else it passes for none.

    Raises:
        redis.RedisError: If the Redis of a spine does not answer.
        DamagedKey: If another program wrote to one of the keys.
    """
    found = []
    for _ in each_spine():
        base = experiment_sums_key(state.program, state.epoch)
        stored = cast("list[bytes | None]", jobs_client().mget([base + name for name in names]))
        absent = [base + name for name, each in zip(names, stored, strict=True) if each is None]
        # MGET passes over keys of another type, and an arm without its counts would pass for one without calls.
        if is_strict and absent and jobs_client().exists(*absent):
            _refuse_damaged(absent)
        found.append(stored)
    return found[0] if len(found) == 1 else [added_arrays(each) for each in zip(*found, strict=True)]


def read_counts(state: ExperimentState, name: str) -> dict[bytes, int]:
    """Return a hash of counters.

    Raises:
        redis.RedisError: If the Redis of a spine does not answer.
    """
    found: Counter[bytes] = Counter()
    for _ in each_spine():
        stored = read_hash(jobs_client().hgetall(experiment_sums_key(state.program, state.epoch) + name))
        found.update({field: int(read_number(count)) for field, count in stored.items()})
    return dict(found)


def read_units(state: ExperimentState) -> dict[bytes, int]:
    """Return the number of units by arm where units ask on several spines, each of which has a bitmap of an arm's.

    A unit's questions are on several spines, so that the sum of what each has counted would count it again.

    Raises:
        redis.RedisError: If the Redis of a spine does not answer.
    """
    if process_spines() is None:
        return {}
    seen = dict.fromkeys(state.arms, 0)
    for _ in each_spine():
        start = experiment_sums_key(state.program, state.epoch) + UNITS_OF_ARM
        for arm in state.arms:  # one at a time: each is 1 MiB
            stored = cast("bytes | None", jobs_client().get(start + arm))
            # Bit 0 is the highest of the first byte, so shorter bitmaps end early.
            seen[arm] |= int.from_bytes((stored or b"").ljust(CELLS // 8, b"\0"), "big")
    return {arm.encode(): bits.bit_count() for arm, bits in seen.items() if bits}


def added_arrays(arrays: Iterable[bytes | None]) -> bytes | None:
    """Return the sums of packed counters; what is missing at an array's end is 0, and a sum saturates as in Redis."""
    given = [each for each in arrays if each]
    if len(given) < 2:  # noqa: PLR2004 - nothing to add
        return given[0] if given else None
    counters = (struct.unpack(f">{len(each) // COUNTER_BYTES}q", each) for each in given)
    sums = [min(max(sum(each), _LEAST), _MOST) for each in itertools.zip_longest(*counters, fillvalue=0)]
    return struct.pack(f">{len(sums)}q", *sums)


def _refuse_damaged(names: Sequence[str]) -> None:
    for name in names:
        found = cast("bytes", jobs_client().type(name)).decode()
        if found not in ("none", "string"):  # it may have been made since
            raise DamagedKey(
                f"cannot read the experiment's sums: WRONGTYPE {name} is a {found}: another program wrote it; "
                "delete it, or give dspyq a key_prefix of its own"
            )
