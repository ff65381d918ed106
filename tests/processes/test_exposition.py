"""Pages of metrics of several workers as one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dspyq.processes.exposition import merge_pages


def page(number: int) -> str:
    registry = CollectorRegistry()
    Counter("jobs", "Jobs.", ["queue"], registry=registry).labels('a "b" {c} \\ \n d').inc(number)
    Gauge("held", "Held.", registry=registry).set(number)
    Histogram("seconds", "Seconds.", registry=registry, buckets=(1.0,)).observe(number)
    return generate_latest(registry).decode()


def test_every_sample_is_there_with_its_workers_name() -> None:
    merged = list(text_string_to_metric_families(merge_pages([("one", page(1)), ("two", page(2))])))
    samples = {
        (each.name, each.labels.get("le", ""), each.labels["worker"]): each for f in merged for each in f.samples
    }
    for name, value in (("one", 1), ("two", 2)):
        assert samples["jobs_total", "", name].value == value
        assert samples["jobs_total", "", name].labels["queue"] == 'a "b" {c} \\ \n d'
        assert samples["held", "", name].value == value
        assert samples["seconds_sum", "", name].value == value
        assert samples["seconds_bucket", "+Inf", name].value == 1


def test_a_family_has_one_help_and_one_type_line_before_all_of_its_samples() -> None:
    lines = merge_pages([("one", page(1)), ("two", page(2))]).splitlines()
    heads = [line for line in lines if line.startswith("#")]
    assert len(heads) == len(set(heads))
    alone = [line for line in page(1).splitlines() if line.startswith("#")]
    assert heads == alone
    held = lines.index("# TYPE held gauge")
    assert lines[held + 1 : held + 3] == ['held{worker="one"} 1.0', 'held{worker="two"} 2.0']


def test_what_only_one_worker_has_is_there_too() -> None:
    assert 'only{worker="two"} 3' in merge_pages([("one", page(1)), ("two", page(2) + "only 3\n")])
