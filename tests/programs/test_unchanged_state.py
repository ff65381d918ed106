"""A state without any optimization is refused, or logged if the program allows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dspy
import pytest

from dspyq.errors import ConfigurationError
from dspyq.programs.runner import Runner

Build = Callable[..., Runner]


@pytest.fixture
def saved_by_knn(tmp_path: Path) -> str:
    """The state of a program that KNNFewShot compiled."""
    knn = object.__new__(dspy.KNNFewShot)  # its own construction needs NumPy, and what it saves none of that
    compiled = knn.compile(dspy.Predict("question -> answer"))
    compiled.save(tmp_path / "state.json")
    return str(tmp_path / "state.json")


def test_the_state_of_knn_few_shot_is_refused_by_name(build: Build, saved_by_knn: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^programs\.p\.state: .*changes nothing.*allow_unchanged_state = true$"
    ):
        build(state=saved_by_knn)


def test_a_state_that_changes_nothing_is_served_and_logged_where_that_is_allowed(
    build: Build, saved_by_knn: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert build(state=saved_by_knn, allow_unchanged_state=True).run({"question": "hi"}).outputs == {
        "answer": "echo:hi"
    }
    assert "state_changes_nothing" in caplog.text


def test_a_state_with_demos_alone_is_served(build: Build, tmp_path: Path) -> None:
    program = dspy.Predict("question -> answer")
    program.demos = [dspy.Example(question="q", answer="a")]
    program.save(tmp_path / "state.json")
    build(state=str(tmp_path / "state.json"))
