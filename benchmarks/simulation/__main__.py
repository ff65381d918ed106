"""Prints the tables of docs/scale.md: fleets for three rates, what each part carries, the costs, and measured cases."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.simulation.cases import CASES, Case
from benchmarks.simulation.measured import COSTS
from benchmarks.simulation.plan import deployments, full_at, plan
from benchmarks.simulation.tables import RATES, SEED

_TOKENS, _MILLION_TOKENS_USD = 300, 0.15


def markdown() -> list[str]:
    """Return the tables."""
    return [_fleets(), _full_at(), _costs(), _cases()]


def _fleets() -> str:
    counts = [deployments(rate, COSTS) for rate in RATES]
    plans = [plan(rate / count, COSTS) for rate, count in zip(RATES, counts, strict=True)]
    both = list(zip(counts, plans, strict=True))
    model_usd = _TOKENS * _MILLION_TOKENS_USD
    lines = [
        ("new predictions a second", [f"{rate:,}" for rate in RATES]),
        ("cores that money needs, in one Redis", [f"{plan(rate, COSTS).money_load:.2f}" for rate in RATES]),
        ("deployments, each with a Redis of its own for money", [f"{count}" for count in counts]),
        ("spines of each, at a load of", [f"{one.spines} at {one.spine_load:.2f}" for one in plans]),
        ("Redis servers of all", [f"{count * one.servers}" for count, one in both]),
        ("workers of all, 200 threads each", [f"{count * one.workers:,}" for count, one in both]),
        ("producers, 50 a second each", [f"{count * one.listeners:,}" for count, one in both]),
        ("connections to each spine, of 10,000", [f"{one.spine_connections:,.0f}" for one in plans]),
        ("connections to each Redis of money", [f"{one.money_connections:,.0f}" for one in plans]),
        ("virtual processors of Redis and workers", [f"{count * one.vcpus:,.1f}" for count, one in both]),
        ("memory of workers", [f"{count * one.worker_gigabytes:,.1f} GB" for count, one in both]),
        ("memory of answers kept an hour", [f"{count * one.answer_gigabytes:,.1f} GB" for count, one in both]),
        ("an hour", [f"${count * one.hour_usd:,.2f}" for count, one in both]),
        ("a million new predictions", [f"${one.million_usd:.3f}" for one in plans]),
        ("their model calls", [f"${model_usd:.0f}" for _ in plans]),
    ]
    return _table(lines)


def _full_at() -> str:
    rates = [("one part alone", ["is full at, new predictions a second"])]
    return _table([*rates, *((part, [f"{rate:,.0f}"]) for part, rate in full_at(COSTS).items())])


def _costs() -> str:
    micro = 1e6
    lines = [
        ("one Redis for all, `delay()`", [f"{COSTS.redis_seconds * micro:.0f} µs", "unit_costs"]),
        ("the questions' Redis, where money has another", [f"{COSTS.spine_seconds * micro:.0f} µs", "unit_costs"]),
        ("the Redis of money", [f"{COSTS.money_seconds * micro:.0f} µs", "unit_costs"]),
        ("worker, by `many()`", [f"{COSTS.worker_seconds * micro:,.0f} µs", "unit_costs"]),
        ("a producer, `delay()` and its answer", [f"{COSTS.ask_seconds * micro:.0f} µs", "unit_costs"]),
        ("one question alone, all of it but the model", [f"{COSTS.alone_seconds * 1e3:.1f} ms", "unit_costs"]),
        ("a short answer in Redis, with its alias", [f"{COSTS.answer_bytes:,.0f} bytes", "unit_costs"]),
        ("mark of its settled call, 15 minutes", [f"{COSTS.mark_bytes:.0f} bytes", "unit_costs"]),
        ("connections of a worker of 200 threads to one Redis for all", [f"{COSTS.worker_connections}", "unit_costs"]),
        (
            "the same to a Redis of questions, and to that of money",
            [f"{COSTS.spine_connections}, {COSTS.money_connections}", "unit_costs"],
        ),
        (
            "a Redis of questions, for an idle worker, a second",
            [f"{COSTS.idle_redis_seconds * micro:,.0f} µs", "unit_costs"],
        ),
        (
            "the Redis of money, for an idle worker, a second",
            [f"{COSTS.idle_money_seconds * micro:,.0f} µs", "unit_costs"],
        ),
        ("Redis, for a process that listens, a second", [f"{COSTS.listening_seconds * micro:.0f} µs", "growth"]),
        ("memory of a worker of 200 threads", [f"{COSTS.worker_bytes / 1e6:.0f} MB", "memory"]),
    ]
    shown = [(name, [value, f"`python -m benchmarks --only {benchmark}`"]) for name, (value, benchmark) in lines]
    return _table([("what", ["cost", "measured by"]), *shown])


def _cases() -> str:
    lines = [("case", ["simulated", "measured", "ratio", "allowed", "measured by"])]
    for case in CASES:
        simulated = case.simulate(COSTS, SEED)
        figures = [
            f"{simulated:.3g}{_unit(case)}",
            f"{case.measured:g}{_unit(case)}",
            f"{simulated / case.measured:.2f} ×",
        ]
        command = f"python -m benchmarks {case.command}" if case.command.startswith("--") else case.command
        lines.append(
            (case.name, [*figures, f"within {case.within:g} ×", f"`{command}`" if " -" in command else command])
        )
    return _table(lines)


def _unit(case: Case) -> str:
    return case.unit if case.unit.startswith("/") else f" {case.unit}"


def _table(lines: Sequence[tuple[str, Sequence[str]]]) -> str:
    first, *others = (f"| {name} | {' | '.join(values)} |" for name, values in lines)
    return "\n".join([first, "|---" * (1 + len(lines[0][1])) + "|", *others])


if __name__ == "__main__":
    print("\n\n".join(markdown()))
