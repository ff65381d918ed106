"""Variants that are programs of their own, served by a real worker: each caller gets the answer of its own."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

from dspyq.config.settings import get_settings
from dspyq.errors import BreakerOpen, BudgetExceeded, PredictionFailed
from dspyq.guards.costs import read_costs
from dspyq.store.clients import jobs_client
from tests.support.processes import wait_until

PRICES = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 2.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "compiled": {"state": "compiled.json"},
    "worded": {"instructions": "Answer in rhyme.", "adapter": "JSONAdapter"},
    "sampled": {"temperature": 0.25, "max_tokens": 70, "parameters": {"top_p": 0.5}},
    "own": {"class": "tests.programs.sample_programs:Loud"},
    "more": {"signature": "question -> answer, at: date", "module": "ChainOfThought"},
    "equal": {"max_tokens": 1024},
}


def variants(**changes: dict[str, Any]) -> dict[str, Any]:
    tables = {**VARIANTS, **changes}
    weight = round(1 / len(tables), 6)
    return {"control": None} | {name: {"model": "control", "weight": weight, **table} for name, table in tables.items()}


@pytest.fixture
def file_of(settings_file: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Write a configuration with these variants, and settings of their program."""
    program = dspy.Predict("question -> answer")
    program.demos = [dspy.Example(question="a saved question", answer="a saved answer")]
    program.save(tmp_path / "compiled.json")

    def write(program: dict[str, Any] | None = None, changes: dict[str, Any] | None = None, **own: Any) -> Path:
        return settings_file({"programs": {"qa": {"variants": variants(**own), **(program or {})}}, **(changes or {})})

    return write


@pytest.fixture
def served(file_of: Callable[..., Path], configure: Callable[..., Any], worker: Callable[..., Any]) -> Any:
    """A worker of all variants, and ``predict`` in this process."""
    path = file_of()
    configure(path)
    worker(path)
    from dspyq import predict

    return lambda variant, question="hi": predict.apply_async(kwargs={"question": question}, variant=variant)


def test_the_endpoint_sees_of_each_variant_what_it_replaces(served: Any, endpoint: Any) -> None:
    seen = {}
    for variant in ("plain", "compiled", "worded", "sampled", "own"):
        assert served(variant).get(timeout=30).answer == ("echo:HI" if variant == "own" else "echo:hi")
        seen[variant] = endpoint.requests()[-1]
    assert endpoint.calls() == len(seen)
    texts = {name: request.text for name, request in seen.items()}
    assert [name for name, text in texts.items() if "a saved question" in text] == ["compiled"]
    assert [name for name, text in texts.items() if "Answer in rhyme." in text] == ["worded"]
    assert [name for name, text in texts.items() if "JSON object" in text] == ["worded"]
    sampled = seen["sampled"].parameters
    assert (sampled["temperature"], sampled["top_p"], sampled["max_completion_tokens"]) == (0.25, 0.5, 70)
    others = [request.parameters for name, request in seen.items() if name != "sampled"]
    assert all(each["max_completion_tokens"] == 1024 and "top_p" not in each for each in others)


def test_an_answer_has_the_outputs_of_its_variant_each_of_its_type(served: Any) -> None:
    more = served("more").get(timeout=30)
    assert more.answer == "echo:hi"
    assert type(more.at) is datetime.date
    assert more.metadata.variant == "more"
    assert "reasoning" in more.outputs
    again = served("more").get(timeout=30)
    assert again.metadata.cached
    assert again.at == more.at
    assert served("plain").get(timeout=30).outputs.keys() == {"answer"}


def test_variants_of_equal_settings_share_one_run_and_its_answer(served: Any, endpoint: Any) -> None:
    endpoint.hold()
    first = served("plain", "shared")
    endpoint.wait_for_calls(1)
    second = served("equal", "shared")
    assert second.id == first.id
    endpoint.release()
    assert first.get(timeout=30).answer == second.get(timeout=30).answer
    assert (second.get().metadata.variant, endpoint.calls()) == ("equal", 1)
    assert served("equal", "shared").get(timeout=30).metadata.cached


def test_calls_of_all_forms_of_a_model_pass_one_breaker_and_are_booked_under_its_table(
    file_of: Callable[..., Path], configure: Callable[..., Any], worker: Callable[..., Any], endpoint: Any
) -> None:
    from dspyq import predict

    rules = {"retry": {"max_attempts": 1}, "models": {"control": {"failure_threshold": 1, "reset_timeout_seconds": 60}}}
    path = file_of({"when_unavailable": "fail"}, rules)
    configure(path)
    worker(path)
    for variant in ("plain", "sampled"):
        predict.apply_async(kwargs={"question": "booked"}, variant=variant).get(timeout=30)
    lines = read_costs(jobs_client(), get_settings(), days=1)
    assert {(line.variant, line.model, line.calls) for line in lines} == {
        ("plain", "control", 1),
        ("sampled", "control", 1),
    }
    endpoint.script(status=503, times=1)
    for variant in ("plain", "sampled"):  # the failure of the first opens it for the other
        with pytest.raises(BreakerOpen, match="model 'control'"):
            predict.apply_async(kwargs={"question": "fails"}, variant=variant).get(timeout=30)
    assert endpoint.calls() == 3


def test_a_call_holds_what_the_variants_own_max_tokens_can_cost(
    file_of: Callable[..., Path], configure: Callable[..., Any], worker: Callable[..., Any], endpoint: Any
) -> None:
    from dspyq import predict

    # 1,024 tokens of a reply cost up to 0.2 cents, and its prompt less than 0.1: 70 tokens fit the limit.
    limits = {"daily_usd": 0.0016}
    path = file_of(plain=limits, sampled={**VARIANTS["sampled"], **limits})
    configure(path)
    worker(path)
    with pytest.raises(BudgetExceeded, match="lower its model's max_tokens"):
        predict.apply_async(kwargs={"question": "hi"}, variant="plain").get(timeout=30)
    assert predict.apply_async(kwargs={"question": "hi"}, variant="sampled").get(timeout=30).answer == "echo:hi"
    assert endpoint.calls() == 1


def test_a_fallback_answers_with_its_own_settings_and_outputs(
    file_of: Callable[..., Path], configure: Callable[..., Any], worker: Callable[..., Any], endpoint: Any
) -> None:
    from dspyq import predict

    spare = {"model": "openai/spare", "api_base": endpoint.url, "timeout_seconds": 10, **PRICES}
    rules = {"retry": {"max_attempts": 1}, "models": {"control": {"failure_threshold": 1}, "spare": spare}}
    of_program = {"when_unavailable": "fallback", "fallback_variant": "more"}
    path = file_of(of_program, rules, more={**VARIANTS["more"], "model": "spare"})
    configure(path)
    worker(path)
    endpoint.script(status=503, containing="fails")
    with pytest.raises(PredictionFailed):
        predict.apply_async(kwargs={"question": "fails"}, variant="compiled").get(timeout=30)
    answer = predict.apply_async(kwargs={"question": "hi"}, variant="compiled").get(timeout=30)
    assert (answer.metadata.variant, answer.metadata.fallback) == ("compiled", "more")
    assert answer.answer == "echo:hi"
    assert type(answer.at) is datetime.date
    request = endpoint.requests()[-1]
    assert (request.model, "a saved question" in request.text) == ("spare", False)


def test_a_worker_of_another_configuration_leaves_a_variant_to_one_of_its_own(
    file_of: Callable[..., Path], configure: Callable[..., Any], worker: Callable[..., Any], endpoint: Any
) -> None:
    from dspyq import predict

    before = worker(file_of(compiled={}))
    after = file_of()
    configure(after)
    job = predict.apply_async(kwargs={"question": "hi"}, variant="compiled")
    wait_until(lambda: "jobs_left_to_another_version" in before.logs(), 20, "the worker to leave the job")
    assert endpoint.calls() == 0
    assert predict.apply_async(kwargs={"question": "hi"}, variant="plain").get(timeout=30).answer == "echo:hi"
    assert "a saved question" not in endpoint.requests()[0].text
    worker(after)
    assert job.get(timeout=30).answer == "echo:hi"
    assert "a saved question" in endpoint.requests()[1].text


def test_a_paired_batch_compares_the_compiled_program_with_the_plain_one(
    file_of: Callable[..., Path], worker: Callable[..., Any], dspyq: Callable[..., Any], endpoint: Any, tmp_path: Path
) -> None:
    path = file_of()
    worker(path)
    (tmp_path / "in.jsonl").write_text('{"question": "one"}\n{"question": "two"}\n')
    out = tmp_path / "out.jsonl"
    dspyq("batch", "run", str(tmp_path / "in.jsonl"), "--paired", "--output", str(out), settings=path)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 2 * len(VARIANTS)
    by_variant = {line["metadata"]["variant"]: line["outputs"] for line in lines}
    assert by_variant["more"].keys() == {"reasoning", "answer", "at"}
    assert by_variant["plain"].keys() == {"answer"}
    assert endpoint.calls() == 2 * (len(VARIANTS) - 1)  # two variants are equal
    refused = dspyq(
        *("batch", "run", str(tmp_path / "in.jsonl"), "--paired", "--output", str(out)),
        settings=file_of(compiled={"state": "compiled.json", "temperature": 0.5}),
        ok=False,
    )
    assert "the program, its variants or their weights in the configuration have changed" in refused.stderr
