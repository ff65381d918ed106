"""The benchmarks run; what they find decides no test."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from tests.support.processes import REPOSITORY

pytestmark = pytest.mark.journey


def run_benchmarks(*arguments):
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True, timeout=100).stdout


@pytest.fixture(scope="module")
def rows():
    """Run four of them at once: each start of the benchmarks takes seconds."""
    return json.loads(run_benchmarks("--quick", "--only", "l1_hit,many,sweep,idle_streams", "--json"))


def test_a_quick_run_prints_each_row_with_what_it_must_reach(rows):
    rows = [row for row in rows if row["benchmark"] in {"l1_hit", "many"}]
    beside = [(row["benchmark"], row["other"], row["required"]) for row in rows]
    assert beside == [
        ("l1_hit", "redis-py GET", "≤ 0.50 ×"),
        ("many", "plain Celery, one by one", "≥ 15.00 ×"),
        ("many", "dramatiq, one by one", None),
        ("many", "arq, one by one", None),
    ]
    for row in rows:
        assert row["ours"] > 0
        assert row["theirs"] > 0
        assert row["ratio"] > 0
        assert row["is_met"] in ({True, False} if row["required"] else {None})


def test_a_quick_look_at_idle_streams_finds_the_memory_of_each(rows):
    (row,) = [row for row in rows if row["benchmark"] == "idle_streams"]
    assert (row["measured"], row["required"]) == ("server's memory for each of 200", "≤ 20")
    assert 0 < row["ours"] < 1_000


def test_a_quick_sweep_costs_redis_little(rows):
    *sweeps, memory = [row for row in rows if row["benchmark"] == "sweep"]
    assert [row["measured"] for row in sweeps] == [
        f"Redis's time, {count} jobs waiting" for count in ("0", "1,000", "10,000")
    ]
    assert all(row["ours"] > 0 for row in sweeps)
    assert memory["ours"] > 1_000


@pytest.fixture(scope="module")
def growth(tmp_path_factory):
    plot = tmp_path_factory.mktemp("growth") / "growth.svg"
    return json.loads(run_benchmarks("--quick", "--only", "growth", "--json", "--plot", str(plot))), plot.read_text()


def test_a_quick_run_measures_how_each_cost_grows(growth):
    rows, _ = growth
    assert [(row["path"], row["measured"].split(",")[0]) for row in rows] == [
        ("waiting jobs, 100 to 1,000", "ask"),
        ("waiting jobs, 100 to 1,000", "take and answer"),
        ("waiting jobs, 100 to 1,000", "sweep"),
        ("waiting jobs, 100 to 1,000", "backlog"),
        ("waiting jobs, 100 to 1,000", "memory of a job"),
        ("programs, 1 to 3", "question"),
        ("programs, 1 to 3", "idle worker"),
        ("programs, 1 to 3", "scrape"),
        ("programs, 1 to 3", "scrape"),
        ("listeners, 1 to 10", "answer"),
        ("listeners, 1 to 10", "invalidation"),
        ("listeners, 1 to 10", "listening"),
    ]
    for row in rows:
        assert len(row["points"]) == 2
        assert all(value > 0 for _, value in row["points"])
        assert row["ours"] == row["points"][-1][1]


def test_the_plot_is_one_file_with_a_line_for_each_cost(growth):
    rows, plot = growth
    namespace = "{http://www.w3.org/2000/svg}"
    drawn = ElementTree.fromstring(plot)  # noqa: S314 - of our own
    panels = drawn.findall(f"{namespace}g")
    titles = [panel.findtext(f"{namespace}text") for panel in panels]
    assert titles == ["Waiting jobs, 100 to 1,000", "Programs, 1 to 3", "Listeners, 1 to 10"]
    text = "".join(drawn.itertext())
    assert all(f"{row['measured']}: " in text for row in rows if row["unit"] == "µs")
    assert plot.count("http") == 1  # the name of SVG itself: nothing is fetched


def test_each_benchmark_can_be_named():
    listed = [line.split()[0] for line in run_benchmarks("--list").splitlines()]
    assert listed == [
        "l1_hit",
        "l2_hit",
        "miss",
        "many",
        "bulk",
        "door",
        "idle_streams",
        "litellm",
        "single_flight",
        "throughput",
        "cpu",
        "imports",
        "loop_lag",
        "memory",
        "scale_out",
        "processes",
        "sweep",
        "streams",
        "tenants",
        "many_programs",
        "many_spines",
        "batch",
        "experiment_counting",
        "sealing",
        "unit_costs",
        "simulation",
        "growth",
    ]
