"""Runs beside each other in one process: threads, memory, caches, models, and what is loaded."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import psutil
import pytest
from tqdm import tqdm

from dspyq.errors import PredictionFailed
from tests.programs.runner_support import QUESTION, Build, BuildAll, billed, own, tokens
from tests.support.endpoint import Endpoint


def test_threads_share_a_program_without_mixing_answers_or_usage(build_all: BuildAll, endpoint: Endpoint) -> None:
    runners = build_all(
        {
            "plain": {"signature": "question -> answer"},
            "thought": {"signature": "question -> answer", "module": "ChainOfThought"},
            "best": {"signature": "question -> answer", **own("ThreeTries")},
            "fan": {"signature": "question -> answer", **own("Fan")},
        }
    )
    expected_calls = {"plain": 1, "thought": 1, "best": 3, "fan": 8}
    mixed: list[object] = []
    totals = [0, 0, 0]

    lock = threading.Lock()

    def ask(number: int) -> None:
        for turn in range(20):
            name = {3: "best", 7: "fan"}.get(turn, ("plain", "thought")[turn % 2])
            question = f"{number}.{turn}." + "x" * (7 * number)
            answer = runners[name, "a"].run({"question": question})
            parts = [f"{question}.{part}" for part in range(8)] if name == "fan" else [question]
            is_own = answer.outputs["answer"] == " ".join(f"echo:{part}" for part in parts)
            prompt_lengths = {call.prompt_tokens for call in answer.calls}
            if not is_own or len(answer.calls) != expected_calls[name] or len(prompt_lengths) != 1:
                mixed.append((name, question, answer))
            with lock:
                totals[:] = [total + part for total, part in zip(totals, tokens(answer), strict=True)]

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(ask, range(20)))
    assert mixed == []
    assert tuple(totals) == billed(endpoint)


def test_a_run_in_parallel_breaks_no_bar_that_another_thread_is_making(build: Build) -> None:
    runner = build(**own("Fan"))
    bar = tqdm.__new__(tqdm)  # as far as another thread has come
    assert runner.run(QUESTION).outputs["answer"].startswith("echo:hi.0 ")
    bar.__init__(range(3), disable=True)
    assert list(bar) == [0, 1, 2]


@pytest.mark.long
def test_memory_does_not_grow_with_predictions(build: Build) -> None:
    runner = build(module="ChainOfThought")
    process = psutil.Process()

    def grown_bytes(runs: int) -> int:
        before = process.memory_info().rss
        for number in range(runs):
            runner.run({"question": f"{number} " + "x" * 500})
        return process.memory_info().rss - before

    grown_bytes(300)  # pools, caches and arenas fill
    assert grown_bytes(2000) < 4_000_000
    assert dspy.settings.trace == []


def test_the_structure_of_a_signature_is_written_once(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    write = dspy.ChatAdapter.format_field_structure
    monkeypatch.setattr(
        dspy.ChatAdapter, "format_field_structure", lambda self, signature: written.append(1) or write(self, signature)
    )
    runner = build()
    assert {runner.run({"question": question}).outputs["answer"] for question in ("a", "b")} == {"echo:a", "echo:b"}
    assert len(written) == 1


def test_dspys_own_caches_are_off(build: Build) -> None:
    build()
    assert not dspy.cache.enable_disk_cache
    assert not dspy.cache.enable_memory_cache


def test_the_variants_of_a_program_run_on_their_own_models(build_all: BuildAll, endpoint: Endpoint) -> None:
    free = {"input_usd_per_million_tokens": 0, "output_usd_per_million_tokens": 0}
    models = {name: {"model": f"openai/{name}", "api_base": endpoint.url, **free} for name in ("small", "large")}
    variants = {"a": {"model": "small", "weight": 0.5}, "b": {"model": "large", "weight": 0.5}}
    runners = build_all({"p": {**own("Twice"), "signature": "question -> answer", "variants": variants}}, models=models)
    calls = runners["p", "a"].run(QUESTION).calls
    assert [call.model for call in calls] == ["small", "small"]
    runners["p", "b"].run(QUESTION)
    assert [request.model for request in endpoint.requests()] == ["small", "small", "large", "large"]


def test_dspys_messages_quote_no_user(build: Build, endpoint: Endpoint, capfd: pytest.CaptureFixture[str]) -> None:
    endpoint.script(times=2, content="a secret reply")
    endpoint.script(times=1, finish_reason="length")
    build(**own("ThreeTries")).run({"question": "a secret question"})
    with pytest.raises(PredictionFailed):
        build(**own("Fan"), model={"api_base": "http://127.0.0.1:9/v1"}).run({"question": "a secret question"})
    printed = capfd.readouterr()
    assert "secret" not in printed.out + printed.err
    assert printed.err == ""


def test_a_worker_loads_neither_litellm_nor_prices_from_the_network(endpoint: Endpoint, tmp_path: Path) -> None:
    code = f"""
import sys
from dspyq.config.settings import Settings
from dspyq.programs.runner import build_programs
model = {{"model": "openai/gpt-4o-mini", "api_base": {endpoint.url!r}}}
program = {{"signature": "question -> answer", "variants": {{"a": {{"model": "m"}}}}}}
runners = build_programs(Settings(models={{"m": model}}, programs={{"p": program}}))
assert runners["p", "a"].run({{"question": "hi"}}).cost_usd > 0
from dspy.clients.model_metadata import source_info
assert source_info()["is_env_forced"], "the price table would come from the network"
print(sorted({{"litellm", "openai", "numpy", "pandas", "optuna", "datasets", "diskcache"}} & sys.modules.keys()))
"""
    home = {"HOME": str(tmp_path), "PATH": ""}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=home, timeout=60
    )
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
    assert list(tmp_path.iterdir()) == [], "DSPy's disk cache was made"
