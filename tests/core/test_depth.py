"""The depth of values is checked before anything is written of them."""

from __future__ import annotations

import dataclasses
import functools
from collections import deque
from typing import Any

import pydantic
import pytest

from dspyq.core.depth import MOST_DEPTH, has_deep_objects, is_too_deep


class Model(pydantic.BaseModel):
    part: Any = None
    parent: Any = pydantic.Field(None, exclude=True)


class Open(pydantic.BaseModel, extra="allow"):
    pass


@dataclasses.dataclass
class Plain:
    part: Any


@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    part: Any


@pydantic.dataclasses.dataclass
class Checked:
    part: Any
    parent: Any = pydantic.Field(None, exclude=True)


def nested(wrap, levels):
    return functools.reduce(lambda inner, _: wrap(inner), range(levels), 1)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: Model(part=inner),
        lambda inner: Open(part=inner),
        Plain,
        Slotted,
        Checked,
        lambda inner: frozenset([inner]),
        lambda inner: deque([inner]),
        lambda inner: {"part": (inner, 1)}["part"],
        lambda inner: {"a": inner, "b": 1},
    ],
)
def test_objects_are_deep_beyond_the_stated_depth(wrap):
    assert not has_deep_objects(nested(wrap, MOST_DEPTH))
    assert has_deep_objects(nested(wrap, MOST_DEPTH + 1))


@pytest.mark.parametrize("class_", [Model, Checked])
def test_a_field_that_is_not_written_has_no_depth(class_):
    assert not has_deep_objects(nested(lambda inner: class_(part=1, parent=inner), 2 * MOST_DEPTH))


def test_what_holds_itself_is_not_deep_for_that():
    child, parent = Plain(None), Model()
    child.part, parent.part = parent, [child, child]
    assert not has_deep_objects(parent)
    assert not has_deep_objects([Plain, Model, "text", 1])


@pytest.mark.parametrize("value", [1, "text", None, Plain(1), Plain])
def test_a_single_value_is_not_deep(value):
    assert not is_too_deep(value)
    assert not has_deep_objects(value)
