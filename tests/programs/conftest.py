"""Programs of a configuration, built in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from dspyq.config.settings import load_settings
from dspyq.programs.runner import Runner, build_programs
from tests.support.configuration import write_settings
from tests.support.endpoint import Endpoint


@pytest.fixture
def build_all(endpoint: Endpoint, tmp_path: Path) -> Iterator[Callable[..., dict[tuple[str, str], Runner]]]:
    """Build the programs of these tables; each runs on the model ``m`` on the endpoint unless it says otherwise."""
    with ExitStack() as built:

        def build(
            programs: dict[str, dict[str, Any]],
            *,
            model: dict[str, Any] | None = None,
            queues: set[str] | None = None,
            **tables: Any,
        ) -> dict[tuple[str, str], Runner]:
            prices = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 2.0}
            models = {"m": {"model": "openai/m", "api_base": endpoint.url, **prices, **(model or {})}}
            document = {
                "models": {
                    name: {key: value for key, value in table.items() if value is not None}
                    for name, table in models.items()
                },
                "programs": {name: {"variants": {"a": {"model": "m"}}, **table} for name, table in programs.items()},
                **tables,
            }
            runners = build_programs(load_settings(write_settings(tmp_path / "dspyq.toml", document)), queues)
            for runner in runners.values():
                built.enter_context(closing(runner))
            return runners

        yield build


@pytest.fixture
def build(build_all: Callable[..., dict[tuple[str, str], Runner]]) -> Callable[..., Runner]:
    """Build one program: ``build(module="ChainOfThought", model={"timeout_seconds": 1})``."""

    def build_one(model: dict[str, Any] | None = None, **program: Any) -> Runner:
        (runner,) = build_all({"p": {"signature": "question -> answer", **program}}, model=model).values()
        return runner

    return build_one


def _stated(table: dict[str, Any]) -> dict[str, Any]:
    """A table without what a test took away with None."""
    return {key: value for key, value in table.items() if value is not None}
