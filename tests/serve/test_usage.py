"""Usage over HTTP, against a real server and a real worker."""

from __future__ import annotations

import datetime as dt

import pytest

from dspyq.api_keys.store import ApiKeys
from dspyq.config.key_grants import KeyGrant
from dspyq.config.settings import get_settings
from dspyq.guards.limits import Limits
from dspyq.store.clients import jobs_client
from tests.support.processes import eventually

pytestmark = pytest.mark.usefixtures("shared_worker")


def test_without_keys_the_usage_is_the_whole_house_s(shared_door):
    shared_door.ask("a call that is booked")
    eventually(lambda: shared_door.api.get("/v1/usage").json()["days"])
    found = shared_door.api.get("/v1/usage").json()
    (today,) = found["days"]
    assert (found["tenant"], today["date"], today["calls"]) == (None, found["to"], 1)
    assert today["billed_usd"] > 0
    assert today["prompt_tokens"] > 0
    assert today["avoided_usd"] >= 0
    yesterday = (dt.date.fromisoformat(found["to"]) - dt.timedelta(days=1)).isoformat()
    assert shared_door.api.get("/v1/usage", params={"to": yesterday}).json()["days"] == []


@pytest.mark.parametrize("query", ["from=yesterday", "to="])
def test_days_that_are_none_are_refused(shared_door, query):
    assert shared_door.api.get(f"/v1/usage?{query}").status_code == 422


@pytest.mark.usefixtures("configured")
def test_a_key_sees_its_own_tenant_s_usage_and_what_is_left_of_its_limits(door):
    keys = ApiKeys(jobs_client())
    one, other = keys.create("acme", "a", KeyGrant()), keys.create("other", "b", KeyGrant())
    blind = keys.create("acme", "c", KeyGrant(can=("predict",)))
    Limits(jobs_client(), get_settings()).override("tenant:acme", "daily", 5_000_000_000)
    server = door()

    def usage(key):
        return server.api.get("/v1/usage", headers={"Authorization": f"Bearer {key.text}"})

    server.ask("of acme", headers={"Authorization": f"Bearer {one.text}"})
    eventually(lambda: usage(one).json()["days"])
    found = usage(one).json()
    assert (found["tenant"], found["days"][0]["calls"]) == ("acme", 1)
    (limit,) = found["limits"]
    assert (limit["scope"], limit["period"], limit["limit_usd"]) == ("tenant:acme", "daily", 5.0)
    assert limit["left_usd"] == pytest.approx(5.0 - found["days"][0]["billed_usd"])
    # Two answers from memory save what the first cost.
    for _ in range(2):
        assert server.ask("of acme", headers={"Authorization": f"Bearer {one.text}"}).json()["metadata"]["cached"]
    saved = pytest.approx(2 * found["days"][0]["billed_usd"])
    eventually(lambda: usage(one).json()["days"][0]["avoided_usd"] == saved)
    assert usage(other).json()["days"] == []
    assert usage(blind).status_code == 403
