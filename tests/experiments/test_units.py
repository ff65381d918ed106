"""Units of any text: each has one arm, and is counted once."""

from __future__ import annotations

import pytest

from dspyq.errors import InvalidOption
from dspyq.experiments import administration
from dspyq.experiments.sums_reader import read_sums
from dspyq.prediction.request import MOST_UNIT_CHARACTERS
from tests.support.experiments import with_experiment

ODD = [
    "",
    " ",
    "\0",
    "a\0b",
    "a",
    "é",
    "🦆" * 50,
    "\ud800",
    "x" * MOST_UNIT_CHARACTERS,
    "line\nbreak",
    "0 1 2 3",
    "%s",
    5,
]


@pytest.fixture
def started(settings_file, configure):
    program = configure(settings_file(with_experiment(), challenger=0.5)).programs["qa"]
    return administration.start(program), administration.plan_of(program).table


@pytest.fixture
def ask(started):
    from dspyq import predict

    del started
    return lambda unit, number=0: predict.apply_async(kwargs={"question": f"asked {number}"}, unit=unit)


def test_a_unit_of_any_text_keeps_its_arm_and_is_counted_once(started, ask):
    for unit in ODD:
        requests = [ask(unit, number).request for number in range(3)]
        assert len({request.exposure.arm for request in requests}) == 1
        assert len({request.exposure.cell for request in requests}) == 1
    assert sum(each.units for each in read_sums(*started, today=20_000).values()) == len(ODD)


def test_a_number_is_the_unit_of_its_digits(ask):
    assert ask(5).request.exposure == ask("5").request.exposure


def test_a_unit_that_is_too_long_is_refused_in_one_line(ask):
    with pytest.raises(InvalidOption) as refused:
        ask("x" * 10_000)
    assert str(refused.value) == "unit has 10,000 characters; it may have 1,024"
