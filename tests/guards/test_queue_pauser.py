"""The queues a worker takes nothing from while their model cannot be called."""

import redis

from dspyq.delivery.pauses import Pauses
from dspyq.errors import BreakerOpen
from dspyq.guards.interruptions import Refusal
from dspyq.guards.queue_pauser import QueuePauser, Upkeep
from tests.support.processes import eventually


def refusal(seconds_left=None, wait_seconds=60.0):
    return Refusal(BreakerOpen("ill"), wait_seconds=wait_seconds, pauses_queue=True, seconds_left=seconds_left)


def test_a_queue_is_paused_until_its_refusal_is_over():
    pauses = Pauses()
    pauser = QueuePauser(pauses)
    left = [2.0]
    pauser.close("qa.control", refusal(lambda: left[0]))
    pauser.resume_due()
    assert pauses.queues == {"qa.control"}
    left[0] = 0.0
    pauser.resume_due()
    assert not pauses.queues


def test_a_refusal_with_only_a_time_is_over_then():
    pauses = Pauses()
    pauser = QueuePauser(pauses)
    pauser.close("qa.control", refusal(wait_seconds=0.05))
    assert pauses.queues
    eventually(lambda: pauser.resume_due() or not pauses.queues, timeout_seconds=60)


def test_a_queue_that_was_refused_again_while_it_was_asked_for_stays_paused():
    pauses = Pauses()
    pauser = QueuePauser(pauses)

    def refused_again():
        pauser.close("qa.control", refusal(lambda: 1.0))
        return 0.0

    pauser.close("qa.control", refusal(refused_again))
    pauser.resume_due()
    assert pauses.queues == {"qa.control"}


def test_a_fault_or_an_absent_redis_does_not_end_the_upkeep():
    calls = []

    def catch_up():
        calls.append("caught up")
        raise redis.ConnectionError

    def resume_due():
        calls.append("opened")
        raise ValueError

    upkeep = Upkeep(catch_up, resume_due)
    upkeep.start()
    eventually(lambda: calls.count("caught up") >= 2, timeout_seconds=60)
    upkeep.stop()
    assert calls.count("opened") > calls.count("caught up")
    assert upkeep.failures == len(calls)
