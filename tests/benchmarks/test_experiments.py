"""Short forms of what ``make experiments`` runs; of so few calls only figures that must be 0 decide."""

from __future__ import annotations

import pytest

from benchmarks.experiments import counted_worlds
from benchmarks.experiments.bounds import Bound, Figure
from benchmarks.experiments.pieces import Piece, run


@pytest.fixture
def of_its_own(monkeypatch):
    """Have the environment back afterwards, which a piece changes for its process."""
    for name in ("DSPYQ_CONFIG", "DSPYQ_REDIS_URL", counted_worlds.API_KEY_VARIABLE):
        monkeypatch.setenv(name, "")


@pytest.mark.usefixtures("of_its_own")
def test_what_redis_counts_of_a_world_behind_a_cache_is_what_its_calls_were():
    (found,) = counted_worlds.findings(counted_worlds.TRAFFIC[2], 1, seed=1, calls=400)
    assert found.differences == 0
    assert 50 < found.hits < 350
    assert found.effective_clusters > 0


def test_pieces_are_shown_as_they_end_and_returned_in_their_order(capsys):
    pieces = [Piece("first", Measured(0.01)), Piece("faulty", Measured("no number")), Piece("second", Measured(0.06))]
    figures = run(pieces, at_once=1)
    assert [(figure.value, figure.is_met) for figure in figures] == [(0.01, True), (1, False), (0.06, False)]
    shown = capsys.readouterr().err
    assert "3 of 3: " in shown
    assert "measured: 1.0 % (≤ 5.0 %)" in shown
    assert "measured: 6.0 % (≤ 5.0 %, NOT MET)" in shown


class Measured:
    def __init__(self, value):
        self.value = value

    def __call__(self):
        return [Figure("a world", "measured", float(self.value), Bound("≤", 0.05), 10)]
