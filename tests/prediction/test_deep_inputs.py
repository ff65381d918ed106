"""Inputs that nest too deep are refused before pydantic writes them."""

from __future__ import annotations

import pytest

from dspyq.errors import InvalidInputs
from dspyq.prediction.contract import Contract
from tests.config.test_codec import nested, tree
from tests.prediction.test_optional_inputs import program

CYCLIC: list = []
CYCLIC.append(CYCLIC)


def canonical(type_text, value):
    return Contract(program(f"question: {type_text} -> answer")).canonical({"question": value})


@pytest.mark.timeout(30)  # pydantic before 2.14.2 would write some of these for minutes
@pytest.mark.parametrize("type_text", ["Any", "list[tests.config.test_codec.Tree]"])
@pytest.mark.parametrize("value", [[tree(199)], [tree(260)], [tree(800)], nested(5000), CYCLIC])
def test_an_input_that_nests_too_deep_is_refused(type_text, value):
    with pytest.raises(InvalidInputs, match="nest deeper than 200 levels"):
        canonical(type_text, value)


@pytest.mark.parametrize("type_text", ["Any", "list[tests.config.test_codec.Tree]"])
def test_an_input_within_the_stated_depth_is_sent(type_text):
    assert canonical(type_text, [tree(100)]).count(b"part") == 101
