"""What Redis could not be told of a call when it happened."""

import pytest
import redis

from dspyq.guards.budget import Bill, Budget
from dspyq.guards.outbox import Settlements
from dspyq.store.scripts import Script, run_together
from tests.support.budgets import call, settings
from tests.support.processes import wait_until


@pytest.fixture
def server(fresh_redis_server):
    return fresh_redis_server()


@pytest.fixture
def client(server):
    """A client that gives up after a moment, as the workers' does after ten seconds."""
    with redis.Redis.from_url(server.url, socket_timeout=0.3) as client:
        yield client


def held(server):
    with server.client() as client:
        accounts = [client.hget(key, "held") for key in client.scan_iter("dspy:v1:budget:all:*")]
        return client.zcard("dspy:v1:budget:leases"), {int(value) for value in accounts}


def test_what_a_frozen_redis_holds_after_the_caller_gave_up_is_released(server, client):
    budget, settlements = Budget(client, settings(daily_usd=1)), Settlements(client)
    run_together(client, [budget.hold(call(0), 1000)])  # the script is loaded
    run_together(client, [budget.release(call(0))])
    for number in range(1, 6):
        server.process.stop()
        with pytest.raises(redis.TimeoutError):
            run_together(client, [budget.hold(call(number), 1000)])
        settlements.tell_later([budget.release(call(number))])
        server.process.cont()
        settlements.catch_up()
    with server.client() as watcher:
        wait_until(lambda: watcher.info("clients")["connected_clients"] <= 3, 5, "Redis to have read what was sent")
    assert held(server) == (0, {0})
    assert settlements.late_count == 0


def test_what_redis_refuses_keeps_nobody_else_waiting(server, client):
    budget, settlements = Budget(client, settings(daily_usd=1)), Settlements(client)
    run_together(client, [budget.hold(call(), 1000)])
    settlements.tell_later([Script(client, "return redis.error_reply('ERR no')").step(bytes)])
    settlements.tell_later([budget.settle(call(), Bill(500))])
    with pytest.raises(redis.ResponseError):
        settlements.catch_up()
    assert held(server) == (0, {0})
    assert settlements.late_count == 1


def test_a_call_is_settled_once_redis_answers_again(server, client):
    budget, settlements = Budget(client, settings(daily_usd=1)), Settlements(client)
    run_together(client, [budget.hold(call(), 1000)])
    server.process.stop()
    settlements.tell([budget.settle(call(), Bill(500))])
    server.process.cont()
    settlements.catch_up()
    assert held(server) == (0, {0})


def test_a_hold_that_arrives_after_its_release_holds_nothing(server, client):
    budget = Budget(client, settings(daily_usd=1))
    run_together(client, [budget.release(call())])
    with pytest.raises(redis.ResponseError, match="is settled"):
        run_together(client, [budget.hold(call(), 1000)])
    assert held(server) == (0, set())
