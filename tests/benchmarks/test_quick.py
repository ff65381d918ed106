"""The benchmarks run; what they find decides no test."""

import json
import subprocess
import sys

from tests.support.processes import REPOSITORY


def run_benchmarks(*arguments):
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True, timeout=100).stdout


def test_a_quick_run_prints_each_row_with_what_it_must_reach():
    rows = json.loads(run_benchmarks("--quick", "--only", "l1_hit,many", "--json"))
    beside = [(row["benchmark"], row["other"], row["required"]) for row in rows]
    assert beside == [
        ("l1_hit", "redis-py GET", "≤ 0.50 ×"),
        ("many", "plain Celery, one by one", "≥ 2.20 ×"),
        ("many", "dramatiq, one by one", None),
        ("many", "arq, one by one", None),
    ]
    for row in rows:
        assert row["ours"] > 0
        assert row["theirs"] > 0
        assert row["ratio"] > 0
        assert row["is_met"] in ({True, False} if row["required"] else {None})


def test_a_quick_sweep_costs_redis_little():
    *sweeps, memory = json.loads(run_benchmarks("--quick", "--only", "sweep", "--json"))
    assert [row["measured"] for row in sweeps] == [
        f"Redis's time, {count} jobs waiting" for count in ("0", "1,000", "10,000")
    ]
    assert all(row["ours"] > 0 for row in sweeps)
    assert memory["ours"] > 1_000


def test_each_benchmark_can_be_named():
    listed = [line.split()[0] for line in run_benchmarks("--list").splitlines()]
    assert listed == [
        "l1_hit",
        "l2_hit",
        "miss",
        "many",
        "bulk",
        "single_flight",
        "throughput",
        "cpu",
        "imports",
        "memory",
        "scale_out",
        "sweep",
        "batch",
    ]
