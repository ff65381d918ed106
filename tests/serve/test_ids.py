"""Public ids: what they carry, and that nobody else can make or use one."""

import pytest

from dspyq.serve.predictions.ids import PREFIX, CallOfPrediction, read_id, write_id

KEY = b"k" * 32
CALL = CallOfPrediction(
    "0f3b7c62-1d2e-4f60-8a4b-5c6d7e8f9012", "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", 1_790_000_000_123, "joined"
)


@pytest.mark.parametrize("task_id", [CALL.task_id, "a task of my own", CALL.task_id.upper(), "é" * 40, "x" * 36])
@pytest.mark.parametrize("level", [None, "memory", "redis", "joined"])
def test_an_id_carries_its_call(task_id, level):
    call = CALL._replace(task_id=task_id, cache_level=level)
    assert read_id(write_id(call, "acme", KEY), "acme", KEY) == call


def test_an_id_of_another_tenant_or_fleet_is_none():
    public_id = write_id(CALL, "acme", KEY)
    assert read_id(public_id, "other", KEY) is None
    assert read_id(public_id, "", KEY) is None
    assert read_id(public_id, "acme", b"l" * 32) is None


def test_an_id_with_any_character_changed_is_none():
    public_id = write_id(CALL, "", KEY)
    for place in range(len(PREFIX), len(public_id)):
        for other in "Aa0-_=":
            changed = public_id[:place] + other + public_id[place + 1 :]
            assert changed == public_id or read_id(changed, "", KEY) is None, place


@pytest.mark.parametrize("text", ["", "pred_", "pred_é", "pred_" + "A" * 64, "pred_" + "A" * 10_000, "0f3b7c62"])
def test_what_is_no_id_is_none(text):
    assert read_id(text, "", KEY) is None


def test_two_calls_of_one_run_have_different_ids():
    other = CALL._replace(call_id="bbbbbbbb-bbbb-4ccc-8ddd-eeeeeeeeeeee")
    assert write_id(CALL, "", KEY) != write_id(other, "", KEY)
