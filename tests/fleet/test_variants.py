"""Workers of 0.1, which know nothing that a variant replaces but its model, beside workers of today."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspyq import predict
from dspyq.errors import VariantMismatch
from tests.support.processes import wait_until
from tests.support.worker import Worker


@pytest.fixture
def replacing(settings_file: Callable[..., Path]) -> Path:
    """The configuration of today: its control is sampled and worded otherwise than that of 0.1."""
    changed = {"temperature": 0.25, "instructions": "Answer in rhyme."}
    return settings_file({"programs": {"qa": {"variants": {"control": changed}}}, "workers": {"remote_control": None}})


@pytest.mark.journey
def test_a_worker_of_0_1_never_answers_a_variant_that_replaces_something(
    replacing: Path,
    configure: Callable[..., Any],
    old_repository: Path,
    old_environment: dict[str, str],
    worker: Callable[..., Any],
    endpoint: Any,
) -> None:
    configure(replacing)
    environment = {**old_environment, "DSPYQ_DELIVERY__MAX_HAND_BACKS": "1"}
    with Worker(environment, application="workers", repository=old_repository) as old:
        old.ready()
        with pytest.raises(VariantMismatch, match="they have another fingerprint for it"):
            predict.delay(question="q").get(timeout=60)
        assert endpoint.calls() == 0
        old.kill()
    worker(replacing)
    assert predict.delay(question="q").get(timeout=60).answer == "echo:q"
    (request,) = endpoint.requests()
    assert request.parameters["temperature"] == 0.25
    assert "Answer in rhyme." in request.text


def test_0_1_refuses_a_file_in_which_a_variant_replaces_something(
    replacing: Path, old_repository: Path, old_environment: dict[str, str]
) -> None:
    environment = {**old_environment, "DSPYQ_CONFIG": str(replacing)}
    with Worker(environment, application="workers", repository=old_repository) as old:
        wait_until(lambda: not old.is_running, 60, "the worker to end")
        assert "programs.qa.variants.control.temperature: unknown key" in old.logs()
