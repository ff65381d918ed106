"""The table of an experiment: what it takes, and the line that each fault of it gets."""

import re

import pytest

from dspyq.config.experiments import StatedDifference, parse_difference
from dspyq.config.settings import read_settings
from dspyq.errors import ConfigurationError

TABLE = {
    "name": "compiled-november",
    "arms": ["control", "challenger"],
    "primary": "answer.grounded",
    "minimum_effect": 0.02,
    "scores": {"grounded": {"scorer": "quality:is_grounded", "low": 0, "high": 1}},
    "feedback": {"thumbs": {"low": 0, "high": 1}},
    "guards": [
        {"metric": "call.failed", "margin": 0.01},
        {"metric": "answer.cost", "margin": "10 %"},
        {"metric": "answer.slow", "margin": 0.02, "seconds": 8},
    ],
    "ramp": [{"coverage": 0.02, "hours": 1}, {"coverage": 1.0}],
}

SHADOW = {"variants": ["challenger"], "share": 0.1, "daily_usd": 1}


def read(**changes):
    program = {
        "signature": "question -> answer",
        "scorers": ["quality:is_grounded"],
        "variants": {"control": {"model": "fast", "weight": 0.5}, "challenger": {"model": "fast", "weight": 0.5}},
        "experiment": {name: value for name, value in (TABLE | changes).items() if value is not None},
    }
    document = {"models": {"fast": {"model": "openai/gpt-4o-mini"}}, "programs": {"qa": program}}
    return read_settings(document, {}).programs["qa"].experiment


def test_the_table_of_the_documentation_is_read():
    experiment = read()
    assert experiment.control == "control"
    assert experiment.thresholds == {"answer.slow": 8}
    assert {"answer.grounded", "delivered.grounded", "feedback.thumbs", "response.thumbs"} <= set(experiment.metrics)


def test_a_program_without_the_table_has_no_experiment():
    document = {
        "models": {"fast": {"model": "openai/gpt-4o-mini"}},
        "programs": {"qa": {"signature": "question -> answer", "variants": {"control": {"model": "fast"}}}},
    }
    assert read_settings(document, {}).programs["qa"].experiment is None


def test_the_table_changes_no_fingerprint():
    programs = []
    for experiment in ({}, {"experiment": TABLE}):
        variants = {"control": {"model": "fast", "weight": 0.5}, "challenger": {"model": "fast", "weight": 0.5}}
        program = {"signature": "question -> answer", "scorers": ["quality:is_grounded"], "variants": variants}
        document = {"models": {"fast": {"model": "openai/x"}}, "programs": {"qa": program | experiment}}
        programs.append(read_settings(document, {}).programs["qa"])
    assert programs[0].fingerprints == programs[1].fingerprints


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"arms": ["control", "chalenger"]},
            "experiment.arms: qa has no variant 'chalenger'; it has control, challenger",
        ),
        ({"arms": ["control"]}, "experiment.arms: "),
        ({"arms": ["control", "control"]}, "experiment.arms: an arm is named twice"),
        ({"scores": {"grounded": {"scorer": "q:other", "low": 0, "high": 1}}}, "experiment.scores.grounded.scorer: "),
        ({"scores": {"grounded": {"low": 0, "high": 1}}}, "experiment.scores.grounded.scorer: missing"),
        (
            {"scores": {"grounded": {"scorer": "quality:is_grounded", "low": 1, "high": 1}}},
            "experiment.scores.grounded: low must be below high, not 1 and 1",
        ),
        (
            {"scores": {"cost": {"scorer": "quality:is_grounded", "low": 0, "high": 1}}},
            "experiment.scores: cost is",
        ),
        ({"primary": "answer.unknown"}, "experiment: primary: there is no metric 'answer.unknown'; there are answer."),
        ({"primary": "call.slow_wait"}, "experiment: primary: call.slow_wait needs a guard that states its seconds"),
        ({"minimum_effect": 0}, "experiment.minimum_effect: must be above 0, not 0"),
        ({"minimum_effect": "0 %"}, "experiment.minimum_effect: must be above 0, not 0 %"),
        ({"minimum_effect": "three"}, "experiment.minimum_effect: state a number, or a share as in"),
        ({"guards": [{"metric": "feedback.stars", "margin": 1}]}, "experiment: guards.0.metric: there is no metric"),
        ({"guards": [{"metric": "answer.slow", "margin": 1}]}, "experiment.guards.0: seconds belongs to answer.slow"),
        ({"guards": [{"metric": "call.failed", "margin": "-1 %"}]}, "experiment.guards.0.margin: state a number, or"),
        ({"ramp": [{"coverage": 0.5, "hours": 1}, {"coverage": 0.1}]}, "experiment.ramp: each step's coverage must"),
        ({"ramp": [{"coverage": 0.5}, {"coverage": 1}]}, "experiment.ramp: state the hours of each step but the last"),
        (
            {"shadow": SHADOW | {"variants": ["control"]}},
            "experiment: shadow.variants: control",
        ),
        (
            {"primary": "answer.cost", "scores": {}, "shadow": SHADOW},
            "experiment: shadow: its answers are compared by their scores",
        ),
        (
            {"shadow": SHADOW | {"pair_scorers": {"grounded": "q:f"}}},
            "experiment: shadow.pair_scorers: grounded is the name of a score",
        ),
        ({"shadow": SHADOW | {"pair_scorers": {"time": "q:f"}}}, "experiment: shadow.pair_scorers: time is the name"),
        (
            {"scores": {"grounded": {"scorer": "quality:is_grounded", "low": 0, "high": 1, "share": 0}}},
            "experiment.scores.grounded.share: ",
        ),
        (
            {"judge": {"model": "fats", "daily_usd": 1}},
            "experiment.judge.model: there is no [models.fats] table (did you mean fast?)",
        ),
        ({"judge": {"model": "fast"}}, "experiment.judge.daily_usd: missing"),
        ({"unknown": 1}, "experiment.unknown: unknown key"),
        ({"name": None}, "experiment.name: missing"),
    ],
)
def test_a_faulty_table_gets_a_line_that_names_the_place(changes, line):
    with pytest.raises(ConfigurationError, match=re.escape(line)) as caught:
        read(**changes)
    assert all(fault.startswith("programs.qa.experiment") for fault in caught.value.faults)


def test_a_difference_is_a_number_or_a_share():
    assert parse_difference(0.02) == StatedDifference(0.02, is_relative=False)
    assert parse_difference("3 %") == StatedDifference(0.03, is_relative=True)
