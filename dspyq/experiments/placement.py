"""The arm of a unit: a pure function of the experiment's state, the same on every host.

A unit's hash has independent parts. One chooses its arm, another one enrols it. A ramp moves the limit of enrolment
alone, so no unit ever changes its arm (no Simpson's paradox over the steps of a ramp: Crook, Frasca, Kohavi,
Longbotham, "Seven Pitfalls to Avoid when Running Controlled Experiments on the Web", KDD 2009), and one null hypothesis
of the sample ratio holds for the whole experiment.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from blake3 import blake3

#: Clusters of units and of questions; sums are kept for each.
BUCKETS = 1024
#: Cells of the bitmap that counts each unit once.
CELLS = 1 << 23

_DIGEST_BYTES = 20
_COORDINATE_BITS = 53  # all that a float between 0 and 1 holds
_BUCKET_BITS = 10
_SHARE_BYTES = 8
_CELL_BITS = 23

ExperimentStatus = Literal["off", "running", "paused", "stopped"]


class UnitDigest(NamedTuple):
    """The independent parts of a unit's hash.

    Attributes:
        split: Chooses the arm; 0 to 2^53 - 1.
        enrol: Enrols the unit where it is below coverage times 2^53; 0 to 2^53 - 1.
        bucket: The unit's cluster; 0 to 1,023.
        cell: The unit's bit in the bitmap that counts units once; 0 to 2^23 - 1.
    """

    split: int
    enrol: int
    bucket: int
    cell: int


class PlacingState(NamedTuple):
    """The part of an experiment's state that places units.

    Attributes:
        salt: The program's and the experiment's name, so that experiments are independent of each other.
        status: Units are in arms while it is ``running``; ``off`` leaves them to the weights of the configuration.
        arms: The variants that are compared, in equal parts; the first is the control.
        coverage: The share of units that are enrolled; 0 to 1.
        serve: The variant that serves units that are in no arm.
        killed: Arms that serve no unit any more.
    """

    salt: str
    status: ExperimentStatus
    arms: tuple[str, ...]
    coverage: float
    serve: str
    killed: frozenset[str] = frozenset()


class UnitPlace(NamedTuple):
    """The variant that serves a unit, and the unit's coordinates in the sums.

    Attributes:
        variant: The variant.
        is_counted: True for a unit in an arm; calls of the others are not part of the experiment.
        bucket: The unit's cluster; 0 to 1,023, and 0 for a call without a unit.
        cell: The unit's bit in the bitmap that counts units once; 0 for a call without a unit.
    """

    variant: str
    is_counted: bool
    bucket: int
    cell: int


def digest_of_unit(salt: str, unit: str) -> UnitDigest:
    """Return the parts of a unit's hash: 139 of 160 bits of one BLAKE3, from the highest on."""
    hashed = blake3(f"{salt}\0{unit}".encode("utf-8", "surrogatepass")).digest(length=_DIGEST_BYTES)
    left = int.from_bytes(hashed, "big") >> (8 * _DIGEST_BYTES - 2 * _COORDINATE_BITS - _BUCKET_BITS - _CELL_BITS)
    left, cell = divmod(left, CELLS)
    left, bucket = divmod(left, BUCKETS)
    split, enrol = divmod(left, 1 << _COORDINATE_BITS)
    return UnitDigest(split, enrol, bucket, cell)


def bucket_of_question(salt: str, canonical_inputs: bytes) -> int:
    """Return the cluster of a question, 0 to 1,023: the same in every arm, for no variant is part of it."""
    hashed = blake3(salt.encode("utf-8", "surrogatepass") + b"\0" + canonical_inputs).digest(length=2)
    return int.from_bytes(hashed, "big") >> (16 - _BUCKET_BITS)


def is_in_share(salt: str, purpose: str, canonical_inputs: bytes, share: float) -> bool:
    """Return True if a question is one of a share of all: the same on every host, and for each purpose another share.

    Args:
        salt: As of ``PlacingState``.
        purpose: The name of what the share gets.
        canonical_inputs: The question, as JSON with sorted keys.
        share: The part of all questions, 0 to 1.
    """
    seed = f"{salt}\0{purpose}\0".encode("utf-8", "surrogatepass")
    digest = blake3(seed + canonical_inputs).digest(length=_SHARE_BYTES)
    return int.from_bytes(digest, "big") < share * 2.0 ** (8 * _SHARE_BYTES)


def place(state: PlacingState, unit: str | None) -> UnitPlace | None:
    """Return the place of a unit; None where the experiment is off, and the configuration's weights decide.

    Args:
        state: The experiment's state.
        unit: What keeps its arm: a user, a session, or the inputs themselves; None for a call without one, which is
            served and not counted.
    """
    if state.status == "off":
        return None
    if unit is None:
        return UnitPlace(state.serve, is_counted=False, bucket=0, cell=0)
    digest = digest_of_unit(state.salt, unit)
    if state.status == "running" and digest.enrol < state.coverage * (1 << _COORDINATE_BITS):
        arm = state.arms[digest.split * len(state.arms) >> _COORDINATE_BITS]
        if arm not in state.killed:
            return UnitPlace(arm, is_counted=True, bucket=digest.bucket, cell=digest.cell)
    return UnitPlace(state.serve, is_counted=False, bucket=digest.bucket, cell=digest.cell)
