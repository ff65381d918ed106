"""Writes about calls that Redis missed."""

import pytest
import redis

from dspyq.guards.billing import Bill
from dspyq.guards.budget import Budget
from dspyq.guards.outbox import Outbox
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
        amounts = [client.hget(key, "held") for key in client.scan_iter("dspy:v1:budget:all:*")]
        # None stands in an account without a limit.
        return client.zcard("dspy:v1:budget:leases"), {int(amount) for amount in amounts if amount is not None}


def test_what_a_frozen_redis_holds_after_the_caller_gave_up_is_released(server, client):
    budget, outbox = Budget(client, settings(daily_usd=1)), Outbox(client)
    run_together(client, [budget.hold(call(0), 1000)])  # the script is loaded
    run_together(client, [budget.release(call(0))])
    for number in range(1, 6):
        server.process.stop()
        with pytest.raises(redis.TimeoutError):
            run_together(client, [budget.hold(call(number), 1000)])
        outbox.send_later([budget.release(call(number))])
        server.process.cont()
        outbox.catch_up()
    with server.client() as watcher:
        wait_until(lambda: watcher.info("clients")["connected_clients"] <= 3, 60, "Redis to have read what was sent")
    assert held(server) == (0, {0})
    assert outbox.late_count == 0


def test_steps_that_redis_refuses_do_not_block_others(server, client):
    budget, outbox = Budget(client, settings(daily_usd=1)), Outbox(client)
    run_together(client, [budget.hold(call(), 1000)])
    outbox.send_later([Script(client, "return redis.error_reply('ERR no')").step(bytes)])
    outbox.send_later([budget.settle(call(), Bill(500))])
    with pytest.raises(redis.ResponseError):
        outbox.catch_up()
    assert held(server) == (0, {0})
    assert outbox.late_count == 1


def test_a_call_is_settled_once_redis_answers_again(server, client):
    budget, outbox = Budget(client, settings(daily_usd=1)), Outbox(client)
    run_together(client, [budget.hold(call(), 1000)])
    server.process.stop()
    outbox.send([budget.settle(call(), Bill(500))])
    server.process.cont()
    outbox.catch_up()
    assert held(server) == (0, {0})


def test_a_hold_that_arrives_after_its_release_holds_nothing(server, client):
    budget = Budget(client, settings(daily_usd=1))
    run_together(client, [budget.release(call())])
    with pytest.raises(redis.ResponseError, match="is settled"):
        run_together(client, [budget.hold(call(), 1000)])
    assert held(server) == (0, set())
