"""The signature of a class is derived where none is stated, and compared where one is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspyq.config.settings import load_settings
from dspyq.errors import ConfigurationError
from dspyq.programs.runner import Runner, build_programs, check_notes
from tests.support.configuration import write_settings
from tests.support.endpoint import Endpoint

BuildAll = Callable[..., dict[tuple[str, str], Runner]]

CLASSES = "tests.programs.sample_classes:"


def settings(tmp_path: Path, **program: Any) -> Any:
    """Settings with one program ``p``."""
    prices = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 2.0}
    document = {
        "models": {"m": {"model": "openai/m", "api_base": "http://127.0.0.1:9/v1", **prices}},
        "programs": {"p": {"variants": {"a": {"model": "m"}}, **program}},
    }
    return load_settings(write_settings(tmp_path / "dspyq.toml", document))


@pytest.mark.parametrize(
    ("name", "derived"),
    [
        (
            "Typed",
            "ticket: str, rest: list[str], hint: str = 'x', note: str | None -> mood: Literal['a'], due: date | None",
        ),
        ("TwoSteps", "question: str -> answer: str"),
        ("Judged", "picture: dspy.Image -> verdict: tests.programs.sample_types.Verdict"),
    ],
)
def test_a_worker_derives_the_signature_that_a_class_makes(tmp_path: Path, name: str, derived: str) -> None:
    found = settings(tmp_path, **{"class": CLASSES + name})
    build_programs(found)
    assert str(found.programs["p"].signature) == derived


def test_a_stated_signature_and_the_derived_one_are_one_version(tmp_path: Path) -> None:
    left_out = settings(tmp_path, **{"class": CLASSES + "TwoSteps"})
    build_programs(left_out)
    stated = settings(tmp_path, **{"class": CLASSES + "TwoSteps", "signature": "question -> answer"})
    assert left_out.programs["p"].fingerprints == stated.programs["p"].fingerprints


def test_a_program_without_a_stated_signature_answers(build_all: BuildAll, endpoint: Endpoint) -> None:
    (runner,) = build_all({"p": {"class": CLASSES + "TwoSteps"}}).values()
    assert runner.run({"question": "hi"}).outputs == {"answer": "echo:echo:hi"}
    assert endpoint.calls() == 2


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("SideBySide", "its predictors one, other predict different outputs; state it, as in"),
        ("Undecided", "which is no JSON value; state it, as in"),
    ],
)
def test_a_class_without_a_derivable_signature_is_refused_at_start(tmp_path: Path, name: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^programs\.p\.signature: missing, and ") as raised:
        build_programs(settings(tmp_path, **{"class": CLASSES + name}))
    assert fault in str(raised.value)


def test_a_producer_without_a_stated_signature_raises_with_the_line_to_add(tmp_path: Path) -> None:
    program = settings(tmp_path, **{"class": CLASSES + "TwoSteps"}).programs["p"]
    with pytest.raises(
        ConfigurationError, match=r"^programs\.p\.signature: missing: a producer does not load .*check`"
    ):
        _ = program.fingerprints


def test_the_check_prints_the_line_for_producers(tmp_path: Path) -> None:
    found = settings(tmp_path, **{"class": CLASSES + "TwoSteps"})
    build_programs(found)
    (note,) = check_notes(found)
    assert note.endswith('add: signature = "question: str -> answer: str"')


def test_a_difference_of_stated_and_derived_is_reported(tmp_path: Path) -> None:
    found = settings(tmp_path, **{"class": CLASSES + "TwoSteps", "signature": "question -> answer, draft"})
    build_programs(found)
    (note,) = check_notes(found)
    assert '"question: str -> answer: str, draft: str"' in note
    assert """TwoSteps's predictors make "question: str -> answer: str"; keep it if forward""" in note


def test_a_stated_signature_that_the_class_makes_is_passed_over(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        **{
            "class": CLASSES + "Typed",
            "signature": "ticket, rest: list[str] -> due: date | None, mood: Literal['a']",
        },
    )
    assert check_notes(found) == []


def test_a_derived_signature_is_held_to_the_other_settings(tmp_path: Path) -> None:
    fallback = {"when_unavailable": "fallback", "fallback_outputs": {"answr": "x"}}
    with pytest.raises(ConfigurationError, match=r"^programs\.p\.fallback_outputs: state exactly the outputs answer$"):
        build_programs(settings(tmp_path, **{"class": CLASSES + "TwoSteps"}, **fallback))


@pytest.mark.parametrize(
    "stated", [{"instructions": "Be short."}, {"module": "Predict"}, {"fields": {"question": {"description": "x"}}}]
)
def test_what_a_class_states_itself_is_refused_beside_it(tmp_path: Path, stated: dict[str, Any]) -> None:
    (name,) = stated
    with pytest.raises(ConfigurationError, match=rf"^programs\.p: {name} stands beside signature alone"):
        settings(tmp_path, **{"class": CLASSES + "TwoSteps", "signature": "question -> answer"}, **stated)


def test_descriptions_of_fields_reach_the_prompt(build_all: BuildAll, endpoint: Endpoint) -> None:
    fields = {"question": {"description": "As a child asks it."}, "answer": {"description": "In one sentence."}}
    (runner,) = build_all({"p": {"signature": "question -> answer", "fields": fields}}).values()
    runner.run({"question": "hi"})
    (request,) = endpoint.requests()
    assert "`question` (str): As a child asks it." in request.text
    assert "`answer` (str): In one sentence." in request.text


def test_descriptions_are_part_of_the_version(tmp_path: Path) -> None:
    versions = {
        settings(tmp_path, signature="question -> answer", **program).programs["p"].fingerprints["a"]
        for program in (
            {},
            {"fields": {"question": {"description": "a"}}},
            {"fields": {"question": {"description": "b"}}},
            {"fields": {"answer": {"description": "a"}}},
        )
    }
    assert len(versions) == 4


def test_a_description_of_no_field_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^programs\.p: fields\.qestion: the signature has no such field"):
        settings(tmp_path, signature="question -> answer", fields={"qestion": {"description": "x"}})


def test_the_check_warns_of_an_output_of_which_json_values_alone_come_back(tmp_path: Path) -> None:
    found = settings(tmp_path, signature="question -> facts: dict")
    build_programs(found)
    (note,) = check_notes(found)
    assert "facts: dict brings back JSON values only" in note
    assert note.endswith("as dict[str, date]")
