"""Needs in a message that workers of this version do not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dspyq.errors import InvalidRequest, VariantMismatch
from dspyq.prediction.header import Header
from dspyq.prediction.request import Request, build_request
from tests.support.processes import wait_until

STATED = {
    "program": "qa",
    "variant": "control",
    "fingerprint": "f",
    "input_hash": "h",
    "request_id": "r",
    "refresh": False,
    "is_claimed": True,
}


@pytest.fixture
def ask_newly(predict: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Ask as a producer of a later version, whose job needs more than this version knows."""
    header = Request.header
    monkeypatch.setattr(Request, "header", lambda self, **options: header(self, **options)._replace(needs=("more",)))
    return predict.delay


def test_a_header_passes_over_fields_that_a_newer_producer_adds() -> None:
    header = Header.read({**STATED, "lane": "fast", "origin": {"name": "shop"}})
    assert header.stated() == {**STATED, "batch": ""}


@pytest.mark.parametrize("needs", ["more", {"more": 1}, 3, None])
def test_needs_that_are_no_list_are_a_fault(needs: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"\(needs\)"):
        Header.read({**STATED, "needs": needs})


@pytest.mark.usefixtures("configured")
def test_a_message_without_needs_holds_no_field_unknown_to_0_1() -> None:
    stated = build_request({"question": "q"}).header(is_claimed=True).stated()
    assert stated.keys() == {*STATED, "batch"}


def test_a_job_with_unknown_needs_is_answered_by_a_newer_worker(
    ask_newly: Callable[..., Any], worker: Callable[..., Any], settings_file: Callable[..., Any], endpoint: Any
) -> None:
    old = worker()
    job = ask_newly(question="q")
    wait_until(lambda: "jobs_left_to_another_version" in old.logs(), 20, "the worker to hand the job back")
    assert "do not know more" in old.logs()
    assert endpoint.calls() == 0
    worker(settings_file({"workers": {"imports": ["tests.support.newer_worker"]}}))
    assert "q" in job.get(timeout=60).answer
    assert endpoint.calls() == 1


def test_where_no_newer_worker_comes_such_a_job_fails_and_its_question_is_free(
    ask_newly: Callable[..., Any], worker: Callable[..., Any], settings_file: Callable[..., Any], endpoint: Any
) -> None:
    worker(settings_file({"delivery": {"version_wait_seconds": 0.5}}))
    first = ask_newly(question="q")
    with pytest.raises(VariantMismatch, match="no worker that supports more took a job of "):
        first.get(timeout=30)
    assert ask_newly(question="q").id != first.id
    assert endpoint.calls() == 0
