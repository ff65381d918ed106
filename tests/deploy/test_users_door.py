"""The HTTP server with the rights of its user of Redis: on predictions that wait, that run, and that are answered.

No worker takes a job before a test has looked at it: what the server reads of one that waits is other than of one that
runs.
"""

import json

import pytest

from tests.support.configuration import environment
from tests.support.door import Door
from tests.support.processes import wait_until
from tests.support.redis_users import PREFIX, env_of, load_users, refusals

pytestmark = pytest.mark.journey


@pytest.fixture
def server(fresh_redis_server):
    server = fresh_redis_server()
    load_users(server)
    return server


@pytest.fixture
def door(server, session_settings_file, endpoint, nursery, dspyq):
    """The server with its user's rights, and a client with a key that the operator made, of a tenant with a limit."""
    del endpoint, nursery
    operator = env_of(server, "operator")
    made = dspyq("keys", "create", "--tenant", "t", "--name", "n", "--json", env=operator)
    dspyq("tenants", "limit", "t", "--daily", "5", env=operator)
    with Door(environment(session_settings_file, None, env_of(server, "door", DSPYQ_SERVE__DRAIN_SECONDS="0"))) as door:
        door.ready()
        door.api.headers["Authorization"] = f"Bearer {json.loads(made.stdout)['key']}"
        yield door


def test_a_prediction_that_waits_is_looked_at_waited_for_streamed_cancelled_and_deleted(server, door):
    one = door.ask("one", prefer="respond-async").json()
    assert one["status"] == "queued"
    assert door.look(one["id"])["status"] == "queued"
    assert door.ask("two", prefer="wait=1").json()["status"] == "queued"
    with door.api.stream("GET", one["urls"]["events"]) as events:
        assert events.status_code == 200
        assert next(events.iter_lines())
    assert door.api.post(one["urls"]["cancel"]).json()["status"] == "cancelled"
    other = door.ask("three", prefer="respond-async").json()
    assert door.api.delete(other["urls"]["self"]).status_code in {200, 202, 204}
    assert refusals(server) == []


def test_a_prediction_that_waits_states_the_guard_that_holds_it_up(server, door, dspyq):
    one = door.ask("one", prefer="respond-async").json()
    dspyq("breaker", "open", "control", env=env_of(server, "operator"))
    wait_until_it_waits_for("breaker", door, one)
    dspyq("breaker", "close", "control", env=env_of(server, "operator"))
    server.cli("HSET", f"{PREFIX}dspy:v1:rate:control", "gate_until", "9" * 16, "gate_reason", "account")
    wait_until_it_waits_for("rate_limit", door, one)
    dspyq("tenants", "limit", "t", "--daily", "0", env=env_of(server, "operator"))
    wait_until_it_waits_for("budget", door, one)
    assert refusals(server) == []


def wait_until_it_waits_for(guard, door, prediction):
    wait_until(lambda: door.look(prediction["id"])["waits_for"] == guard, 60, f"a prediction that waits for {guard}")


def test_a_prediction_that_runs_or_is_answered_is_looked_at_streamed_cancelled_and_deleted(
    server, door, worker, endpoint
):
    worker(env=env_of(server, "worker"))
    answered = door.ask("a", prefer="wait=20", headers={"Idempotency-Key": '"one"'})
    assert answered.json()["outputs"] == {"answer": "echo:a"}
    with door.api.stream("GET", answered.json()["urls"]["events"]) as events:
        assert "completed" in events.read().decode()
    assert door.look(answered.json()["id"])["status"] == "succeeded"
    assert door.api.delete(answered.json()["urls"]["self"]).status_code in {200, 204}
    endpoint.hold(containing="held")
    calls = endpoint.calls()
    one, other = (door.ask(f"held {name}", prefer="respond-async").json() for name in ("one", "other"))
    endpoint.wait_for_calls(calls + 2)
    assert door.look(one["id"])["status"] == "running"
    assert door.api.post(one["urls"]["cancel"]).json()["status"] == "cancelled"
    assert door.api.delete(other["urls"]["self"]).status_code in {200, 202, 204}
    endpoint.release()
    assert refusals(server) == []
