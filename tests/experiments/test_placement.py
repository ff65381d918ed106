"""The place of a unit, by its hash alone."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dspyq.experiments.placement import (
    BUCKETS,
    CELLS,
    PlacingState,
    bucket_of_question,
    digest_of_unit,
    place,
)

STATE = PlacingState("qa/november", "running", ("control", "challenger"), coverage=1.0, serve="control")
units = st.text()
coverages = st.floats(0, 1)


def test_a_hash_is_cut_into_the_parts_that_every_version_of_the_fleet_cuts():
    """Frozen: another cut would give units other arms."""
    assert digest_of_unit("qa/november", "user-1") == (3072882190000116, 195266898599950, 942, 5874270)
    assert bucket_of_question("qa/november", b'{"question":"?"}') == 969


def test_a_unit_without_a_form_in_utf8_has_a_place():
    assert place(STATE, "\ud800") is not None


@given(units)
def test_each_part_is_in_its_range(unit):
    digest = digest_of_unit("s", unit)
    assert 0 <= digest.split < 2**53
    assert 0 <= digest.enrol < 2**53
    assert 0 <= digest.bucket < BUCKETS
    assert 0 <= digest.cell < CELLS


@given(units, coverages, coverages)
def test_a_ramp_enrols_and_changes_no_arm(unit, first, second):
    low, high = sorted((first, second))
    before, after = (place(STATE._replace(coverage=each), unit) for each in (low, high))
    if before.is_counted:
        assert after == before
    if after.is_counted:
        assert after == place(STATE, unit)


@given(units)
def test_a_unit_that_is_in_no_arm_is_served_and_not_counted(unit):
    for state in (STATE._replace(coverage=0.0), STATE._replace(status="paused"), STATE._replace(status="stopped")):
        found = place(state._replace(serve="challenger"), unit)
        assert (found.variant, found.is_counted) == ("challenger", False)


@given(units)
def test_a_killed_arm_serves_no_unit_and_leaves_the_others_their_arm(unit):
    before = place(STATE, unit)
    after = place(STATE._replace(killed=frozenset({"challenger"})), unit)
    assert after == (before if before.variant == "control" else before._replace(variant="control", is_counted=False))


def test_without_a_unit_a_call_is_served_and_not_counted():
    assert place(STATE, None) == ("control", False, 0, 0)


def test_an_experiment_that_is_off_places_nothing():
    assert place(STATE._replace(status="off"), "user-1") is None


def test_arms_buckets_and_enrolment_are_even_and_independent():
    """30,000 units in three arms: each count within 5 of its standard deviations."""
    state = STATE._replace(arms=("a", "b", "c"))
    digests = [(place(state, str(number)), digest_of_unit(state.salt, str(number))) for number in range(30_000)]
    cells = Counter((found.variant, digest.enrol >> 51, found.bucket >> 7) for found, digest in digests)
    expected = 30_000 / (3 * 4 * 8)
    assert len(cells) == 3 * 4 * 8
    assert all(abs(count - expected) < 5 * expected**0.5 for count in cells.values())


def test_experiments_of_one_program_are_independent():
    other = STATE._replace(salt="qa/december")
    same = sum(place(STATE, str(unit)).variant == place(other, str(unit)).variant for unit in range(10_000))
    assert abs(same - 5_000) < 5 * 50
