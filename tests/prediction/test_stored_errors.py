"""A stored failure holds no secret, whichever task failed."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from celery.result import AsyncResult

from dspyq.celery_app.application import app
from dspyq.config.secrets import process_secrets
from dspyq.store.clients import answers_client


@pytest.mark.parametrize("state", ["FAILURE", "RETRY"])
def test_an_error_and_its_traceback_are_stored_without_secrets(configured: Any, state: str) -> None:
    del configured
    process_secrets().learn("canary-of-a-key")
    error = ValueError("at https://user:canary@host", {"key": ["canary-of-a-key", 3]})
    task_id = str(uuid.uuid4())
    app.backend.store_result(task_id, error, state, traceback="ValueError: canary-of-a-key\n")
    stored = answers_client().get(app.backend.get_key_for_task(task_id))
    assert b"canary" not in stored
    result = AsyncResult(task_id, app=app)
    assert repr(result.result) == "ValueError('at https://[secret]@host', {'key': ['[secret]', 3]})"
    assert result.traceback == "ValueError: [secret]\n"
