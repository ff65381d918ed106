"""Values that are read to be shown: a field that holds no number, or no text, spoils itself alone."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspyq.core.tolerated import read_number, tolerated

RUBBISH = [b"rubbish", b"\xff\xfe", b"1e999", b"nan", b"9" * 400, b""]

pytestmark = pytest.mark.usefixtures("configured")


@given(st.binary(max_size=30))
def test_any_bytes_are_read_as_a_finite_number(field):
    assert abs(int(read_number(field))) >= 0


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_statistics_show_the_other_counts(redis_server, rubbish):
    from dspyq.cache.admin import cache_statistics
    from dspyq.cache.statistics import variant_statistics

    client = redis_server.client()
    client.hset("dspy:v1:statistics:qa.control", mapping={"hits_memory": rubbish, "hits_redis": "7"})
    client.hset("dspy:v1:cache-statistics", "evictions", rubbish)
    (control,) = variant_statistics()
    assert control.hits_redis == 7
    assert cache_statistics() is not None


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_batches_are_listed_beside_one_that_cannot_be_read(redis_server, rubbish):
    from dspyq.batch.registry import process_registry

    client = redis_server.client()
    for batch_id in ("good", "odd"):
        client.zadd("dspy:v1:batches", {batch_id: 1})
        client.hset(f"dspy:v1:batch:{batch_id}", mapping={"state": "running", "seen_at": "1"})
    client.hset("dspy:v1:batch:odd", mapping={"seen_at": rubbish, "program": rubbish})
    assert {batch.id for batch in process_registry().all()} == {"good", "odd"}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rubbish=st.binary(max_size=20))
def test_a_workers_metrics_are_read_whatever_a_field_holds(configured, redis_server, rubbish):
    from dspyq.worker.monitoring.fleet import Fleet, FleetCollector

    client = redis_server.client()
    for name in ("statistics:qa.control", "cache-size", "cache-statistics"):
        for field in ("hits_memory", "misses", "entries", "bytes", "evictions"):
            client.hset(f"dspy:v1:{name}", field, rubbish)
    collector = FleetCollector(configured, Fleet(configured, {}))
    assert "dspy_cache_hits" in {metric.name for metric in collector.collect()}


def test_what_is_no_number_is_counted():
    before = tolerated("snapshot")
    read_number(b"rubbish")
    assert tolerated("snapshot") == before + 1
