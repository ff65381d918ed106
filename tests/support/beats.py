"""Beats of leases that tests make."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from dspyq.delivery.beat import Beat
from dspyq.delivery.leases import Leases
from dspyq.delivery.records import Records
from dspyq.delivery.sweeper import SweepPolicy

_beats: WeakKeyDictionary[Leases, Beat] = WeakKeyDictionary()


def add_beat(leases: Leases, records: Records) -> None:
    """Make the beat of some leases, which does not run yet."""
    _beats[leases] = Beat(leases, records, SweepPolicy(leases.lease_seconds, max_deliveries=3))


def beat_of(leases: Leases) -> Beat:
    """Return the beat of some leases."""
    return _beats[leases]
