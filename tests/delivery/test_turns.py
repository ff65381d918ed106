"""Turns of jobs where tenants share queues: no number of one tenant's jobs holds up another's."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest
import redis

from dspyq.delivery.records import Records

PREFIX = "dspy:v1:"
SEQUENCES_WITH_TENANTS = 2**40


@pytest.fixture
def put(records: Records, job: Any) -> Callable[..., None]:
    """Put jobs of a tenant: ``put("a", 3)`` has the ids ``a0``, ``a1`` and ``a2``."""
    numbers: Counter[str] = Counter()

    def put_some(tenant: str, count: int = 1, **fields: Any) -> None:
        jobs = [job(f"{tenant or 'none'}{numbers[tenant] + each}", tenant=tenant, **fields) for each in range(count)]
        numbers[tenant] += count
        records.put_many(jobs)

    return put_some


def taken(records: Records, count: int) -> list[str]:
    """The ids of the next jobs, taken one by one."""
    found = [records.take("q", 30) for _ in range(count)]
    return [each.id for each in found if each is not None]


def test_another_tenant_s_job_is_among_the_next_behind_10_000_of_one(
    records: Records, put: Callable[..., None]
) -> None:
    put("flood", 10_000)
    assert taken(records, 1) == ["flood0"]
    put("other")
    assert "other0" in taken(records, 2)


@pytest.mark.parametrize(("first", "second"), [("flood", ""), ("", "late")])
def test_jobs_without_a_tenant_are_one_tenant_s(
    first: str, second: str, records: Records, put: Callable[..., None]
) -> None:
    put("other")  # from here on tenants take part
    put(first, 200)
    taken(records, 10)
    put(second)
    assert f"{second or 'none'}0" in taken(records, 2)


def test_tenants_with_waiting_jobs_take_turns_and_each_keeps_its_order(
    records: Records, put: Callable[..., None]
) -> None:
    put("a", 30)
    put("b", 20)
    put("", 20)
    order = taken(records, 70)
    assert len(order) == 70
    for name, count in (("a", 30), ("b", 20), ("none", 20)):
        assert [each for each in order if each.startswith(name)] == [f"{name}{number}" for number in range(count)]
    assert set(Counter(each.rstrip("0123456789") for each in order[:60]).values()) == {20}


def test_no_turns_are_kept_from_a_time_when_a_tenant_s_jobs_were_alone(
    records: Records, put: Callable[..., None]
) -> None:
    """A tenant that had the workers to itself while others asked nothing owes them nothing."""
    put("a", 50)
    taken(records, 50)
    put("b", 3)
    put("a", 3)
    assert taken(records, 2) in (["a50", "b0"], ["b0", "a50"])


def test_the_more_urgent_job_is_first_whosever_it_is(records: Records, put: Callable[..., None]) -> None:
    put("a", 5, priority=5)
    put("b", 5, priority=7)
    put("a", 2, priority=0)
    assert taken(records, 7) == ["a5", "a6", "a0", "a1", "a2", "a3", "a4"]


def test_a_flood_at_one_priority_takes_nothing_from_its_tenant_at_another(
    records: Records, put: Callable[..., None]
) -> None:
    put("a", 100, priority=9)
    put("b", 10, priority=0)
    put("a", 1, priority=0)
    assert "a100" in taken(records, 2)


def test_jobs_put_before_the_first_tenant_came_stay_ahead_of_later_ones_without_a_tenant(
    records: Records, put: Callable[..., None]
) -> None:
    put("", 10)
    put("a", 2)
    put("", 5)
    order = taken(records, 17)
    assert [each for each in order if each.startswith("none")] == [f"none{number}" for number in range(15)]
    assert {"a0", "a1"} <= set(order[:4])


def test_a_job_that_is_handed_back_keeps_its_turn(records: Records, put: Callable[..., None]) -> None:
    put("a", 5)
    put("b", 5)
    first = records.take("q", 30)
    assert first is not None
    records.give_back([first.tag])
    assert taken(records, 1) == [first.id]


def test_questions_asked_in_bulk_take_turns_too(predict: Any, records: Records) -> None:
    predict.many([{"question": f"flood {number}"} for number in range(700)], tenant="flood")
    other = predict.many([{"question": "one"}], tenant="other")[0]
    own = predict.delay(question="of none")
    found = [records.take("qa.control", 30) for _ in range(4)]
    assert {other.id, own.id} <= {each.id for each in found if each is not None}


def test_without_tenants_jobs_have_their_sequences_and_no_turns_are_kept(
    put: Callable[..., None], jobs_redis: redis.Redis
) -> None:
    put("", 3)
    assert [score for _, score in jobs_redis.zrange(PREFIX + "queue:q", 0, -1, withscores=True)] == [1, 2, 3]
    assert not list(jobs_redis.scan_iter(PREFIX + "turns:*"))


def test_the_turns_of_a_queue_end_once_its_jobs_are_taken(
    records: Records, put: Callable[..., None], jobs_redis: redis.Redis
) -> None:
    for number in range(5):
        put(f"tenant{number}")
    taken(records, 5)
    put("last")
    assert jobs_redis.hkeys(PREFIX + "turns:q:0") == ["last"]
    assert jobs_redis.ttl(PREFIX + "turns:q:0") > 0
    assert int(str(jobs_redis.get(PREFIX + "seq"))) > SEQUENCES_WITH_TENANTS


@pytest.mark.property
@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_no_tenant_waits_for_more_than_its_share(
    seed: int, records: Records, put: Callable[..., None]
) -> None:
    """While its jobs wait, none of the others gets more than two turns between two of its own."""
    chance = random.Random(seed)  # noqa: S311 - an order, no secret
    waiting: dict[str, deque[int]] = {name: deque() for name in ("a", "b", "c", "none")}
    since: dict[str, Counter[str]] = {}
    numbers: Counter[str] = Counter()
    for _ in range(150):
        name = chance.choice([*waiting, "a", "a"])
        count = chance.choice([1, 1, 2, 30])
        put("" if name == "none" else name, count)
        waiting[name].extend(range(numbers[name], numbers[name] + count))
        numbers[name] += count
        for each in taken(records, chance.choice([0, 1, 5, 8])):
            of = each.rstrip("0123456789")
            assert int(each.removeprefix(of)) == waiting[of].popleft()
            since.pop(of, None)
            for other, theirs in waiting.items():
                if theirs and other != of:
                    since.setdefault(other, Counter())[of] += 1
                    assert max(since[other].values()) <= 2, (other, since[other])
