"""Assignment is a pure function: it splits as the weights say, sticks, and moves no more than it must."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspyq.config.models import Model
from dspyq.config.programs import Program
from dspyq.config.variants import Variant
from dspyq.prediction.assignment import assign

UNITS = [f"user-{number}" for number in range(20_000)]
MODEL = Model(name="m", model="openai/m")


def program(salt: str = "salt", **weights: float) -> Program:
    variants = {
        name: Variant(name=name, queue=f"qa.{name}", model=MODEL, weight=weight) for name, weight in weights.items()
    }
    return Program(name="qa", signature="question -> answer", salt=salt, variants=variants)


def assigned(asked: Program) -> list[str]:
    return [assign(asked, unit).name for unit in UNITS]


def moves(before: list[str], after: list[str]) -> set[tuple[str, str]]:
    return {(old, new) for old, new in zip(before, after, strict=True) if old != new}


def test_units_are_split_by_the_weights():
    names = assigned(program(control=0.7, second=0.2, third=0.1))
    for name, weight in {"control": 0.7, "second": 0.2, "third": 0.1}.items():
        assert names.count(name) / len(names) == pytest.approx(weight, abs=0.01)


@given(st.text())
def test_a_unit_keeps_its_variant_whatever_it_is_called(unit):
    asked = program(control=0.5, second=0.5)
    assert assign(asked, unit) == assign(asked, unit)


def test_another_process_assigns_the_same():
    code = (
        "from tests.prediction.test_assignment import assigned, program; import sys;"
        "sys.stdout.write(' '.join(assigned(program(control=0.5, second=0.3, third=0.2))[:500]))"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert elsewhere == assigned(program(control=0.5, second=0.3, third=0.2))[:500]


def test_another_salt_splits_independently():
    first, second = assigned(program("one", control=0.5, other=0.5)), assigned(program("two", control=0.5, other=0.5))
    same = sum(one == two for one, two in zip(first, second, strict=True))
    assert same / len(first) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("before", "after", "movers"),
    [
        ({"control": 0.9, "b": 0.1}, {"control": 0.8, "b": 0.2}, {("control", "b")}),
        ({"control": 0.8, "b": 0.1, "c": 0.1}, {"control": 0.7, "b": 0.2, "c": 0.1}, {("control", "b")}),
        ({"control": 0.8, "b": 0.1, "c": 0.1}, {"control": 0.7, "b": 0.1, "c": 0.2}, {("control", "c")}),
        ({"control": 0.8, "b": 0.2, "c": 0.0}, {"control": 0.7, "b": 0.2, "c": 0.1}, {("control", "c")}),
    ],
)
def test_a_changed_weight_moves_units_only_between_control_and_that_variant(before, after, movers):
    old, new = assigned(program(**before)), assigned(program(**after))
    assert moves(old, new) == movers
    moved = sum(one != two for one, two in zip(old, new, strict=True))
    assert moved / len(old) == pytest.approx(0.1, abs=0.01)


def test_a_variant_added_at_the_end_leaves_the_others_units_among_themselves():
    old, new = assigned(program(control=0.8, b=0.2)), assigned(program(control=0.6, b=0.2, c=0.2))
    assert moves(old, new) == {("control", "c")}


def test_a_variant_of_weight_zero_gets_no_unit():
    assert set(assigned(program(control=0.0, b=0.5, c=0.5))) == {"b", "c"}
    assert set(assigned(program(control=1.0, b=0.0, c=0.0))) == {"control"}
