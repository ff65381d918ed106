"""The dashboard's panels, row by row, each with the question it answers.

Two rules hold in every expression: counters of single workers are summed; what says the same on every worker (budgets,
breakers, queues, the cache) is taken once, with ``max``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

GREEN, ORANGE, RED = "green", "orange", "red"
#: Limits the panel to what is chosen at the top.
_MODEL = 'model=~"$model"'
_VARIANT = 'variant=~"$variant"'
_METRIC = 'metric=~"$metric"'
#: What experiments are told apart by.
_OF_METRIC = "program, arm, metric"
_RATE = "[$__rate_interval]"
_HITS = f"sum(max by (level) (rate(dspy_cache_hits_total{_RATE})))"
_MISSES = f"sum(max by (model) (rate(dspy_cache_misses_total{_RATE})))"
_COST_OF_VARIANTS = f"max by (variant) (rate(dspy_variant_cost_usd_total{{{_VARIANT}}}{_RATE}))"
_SPENT_TODAY = 'max(dspy_budget_spent_usd{scope="all", period="daily"})'


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: What is shown.
        description: The question it answers, for the panel's tooltip and docs/dashboards.md.
        queries: Legends and their expressions.
        unit: Grafana's name of the unit.
        kind: Grafana's name of the panel's type.
        width: Of 24 columns.
        steps: From which value on which colour, for what has a good and a bad side.
        names: Words in place of values.
        maximum: The top of the axis.
        minimum: Its bottom; None where values may be below 0.
        stacked: Whether the series add up to something.
    """

    title: str
    description: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    steps: Sequence[tuple[float, str]] = ()
    names: Sequence[tuple[float, str, str]] = ()
    maximum: float | None = None
    minimum: float | None = 0
    stacked: bool = False


def _quantiles(metric: str, labels: str, window: str = _RATE) -> dict[str, str]:
    return {
        f"p{percent}": f"histogram_quantile({percent / 100:g}, sum by (le) (rate({metric}_bucket{{{labels}}}{window})))"
        for percent in (50, 95, 99)
    }


def _sum(by: str, metric: str, *labels: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{', '.join(labels)}}}{_RATE}))"


def _stat(title: str, description: str, query: str, unit: str, **options: Any) -> Panel:
    return Panel(title, description, {title: query}, unit, "stat", 3, **options)


ROWS: dict[str, list[Panel]] = {
    "Now": [
        _stat(
            "Predictions",
            "How many predictions workers end each second.",
            f"sum(rate(dspy_predictions_total{_RATE}))",
            "reqps",
        ),
        _stat(
            "Errors",
            "What share of them fails.",
            f'(sum(rate(dspy_predictions_total{{status="error"}}{_RATE})) or vector(0))'
            f" / sum(rate(dspy_predictions_total{_RATE}))",
            "percentunit",
            steps=[(0, GREEN), (0.01, ORANGE), (0.05, RED)],
        ),
        _stat(
            "p95",
            "How long a computed prediction takes, at the 95th percentile.",
            "histogram_quantile(0.95, sum by (le) (rate(dspy_prediction_duration_seconds_bucket"
            f'{{cached="false"}}{_RATE})))',
            "s",
            steps=[(0, GREEN), (5, ORANGE), (10, RED)],
        ),
        _stat(
            "Hit rate",
            "What share of all questions the cache or a run already in progress answers.",
            f"{_HITS} / ({_HITS} + {_MISSES})",
            "percentunit",
        ),
        _stat(
            "Spent today",
            "What model calls have cost since midnight, in the budget's timezone.",
            _SPENT_TODAY,
            "currencyUSD",
        ),
        _stat(
            "Waiting",
            "How many jobs wait in all queues.",
            'sum(max by (queue) (dspy_queue_jobs{state="waiting"}))',
            "short",
        ),
        _stat(
            "Breakers",
            "The worst state of any model's circuit breaker.",
            "max(dspy_circuit_breaker_open)",
            "short",
            names=[(0, "closed", GREEN), (0.5, "half-open", ORANGE), (1, "open", RED)],
        ),
        _stat(
            "Workers",
            "How many workers answer Prometheus.",
            'sum(up{job="dspyq-worker"})',
            "short",
            steps=[(0, RED), (1, GREEN)],
        ),
    ],
    "Requests": [
        Panel(
            "Predictions by status",
            "Is there traffic, and does it succeed?",
            {"{{status}}": _sum("status", "dspy_predictions_total", _MODEL, _VARIANT)},
            "reqps",
            stacked=True,
        ),
        Panel(
            "Errors by type",
            "Why do predictions fail?",
            {"{{error_type}}": _sum("error_type", "dspy_errors_total", _MODEL)},
            "reqps",
            stacked=True,
        ),
        Panel(
            "Running predictions", "How busy is each worker?", {"{{instance}}": "dspy_active_requests"}, stacked=True
        ),
    ],
    "Latency": [
        Panel(
            "Time of computed predictions",
            "How long does a caller wait once a worker has the job?",
            _quantiles("dspy_prediction_duration_seconds", f'{_MODEL}, cached="false"'),
            "s",
        ),
        Panel(
            "p95 by model",
            "Which model is slow?",
            {
                "{{model}}": "histogram_quantile(0.95, sum by (model, le) (rate(dspy_prediction_duration_seconds_bucket"
                f'{{{_MODEL}, cached="false"}}{_RATE})))'
            },
            "s",
        ),
        Panel(
            "Own overhead",
            "What does dspyq add to the provider's time?",
            _quantiles("dspy_overhead_seconds", _MODEL),
            "s",
        ),
    ],
    "Cache": [
        Panel(
            "Hit rate over time",
            "How many questions need no model call?",
            {"hit rate": f"{_HITS} / ({_HITS} + {_MISSES})"},
            "percentunit",
            width=6,
            maximum=1,
        ),
        Panel(
            "Answers by level",
            "Which level answers: memory, Redis, a run in progress, or a new run?",
            {"{{level}}": f"max by (level) (rate(dspy_cache_hits_total{_RATE}))", "computed": _MISSES},
            "reqps",
            width=6,
            stacked=True,
        ),
        Panel(
            "Size", "How much do the answers in Redis take?", {"bytes": "max(dspy_cache_size_bytes)"}, "bytes", width=6
        ),
        Panel(
            "Cost avoided per hour",
            "What does the cache save?",
            {"{{variant}}": f"max by (variant) (rate(dspy_cost_avoided_usd_total{{{_VARIANT}}}{_RATE})) * 3600"},
            "currencyUSD",
            width=6,
            stacked=True,
        ),
    ],
    "Money": [
        Panel(
            "Cost per hour",
            "What is being spent now, and on which model?",
            {"{{model}}": f"{_sum('model', 'dspy_cost_usd_total', _MODEL)} * 3600"},
            "currencyUSD",
            stacked=True,
        ),
        Panel(
            "Budgets used",
            "How close is each limit? At 100 % its calls are refused.",
            {
                "{{scope}}, {{period}}": "max by (scope, period) (dspy_budget_spent_usd)"
                " / max by (scope, period) (dspy_budget_limit_usd)"
            },
            "percentunit",
            steps=[(0, GREEN), (0.8, ORANGE), (1, RED)],
        ),
        Panel(
            "Today's budget",
            "What is spent today, how much do calls in progress hold, and what is the limit?",
            {
                "spent": _SPENT_TODAY,
                "held": 'max(dspy_budget_held_usd{scope="all", period="daily"})',
                "limit": 'max(dspy_budget_limit_usd{scope="all", period="daily"})',
            },
            "currencyUSD",
        ),
    ],
    "Models": [
        Panel(
            "Circuit breakers",
            "Which model is cut off, and since when?",
            {"{{model}}": f"max by (model) (dspy_circuit_breaker_open{{{_MODEL}}})"},
            kind="state-timeline",
            names=[(0, "closed", GREEN), (0.5, "half-open", ORANGE), (1, "open", RED)],
        ),
        Panel(
            "Calls by outcome",
            "What do providers answer?",
            {"{{outcome}}": _sum("outcome", "dspy_model_calls_total", _MODEL)},
            "reqps",
            stacked=True,
        ),
        Panel(
            "Refused calls",
            "Which guard keeps calls back?",
            {"{{model}}: {{error_type}}": _sum("model, error_type", "dspy_guard_refusals_total", _MODEL)},
            "reqps",
            stacked=True,
        ),
        Panel(
            "Provider's time",
            "How long does a call take at the provider, on average?",
            {
                "{{model}}": f"{_sum('model', 'dspy_provider_seconds_total', _MODEL)}"
                f" / {_sum('model', 'dspy_model_calls_total', _MODEL)}"
            },
            "s",
        ),
        Panel(
            "Tokens",
            "How many tokens go in and come out?",
            {"{{model}}: {{type}}": _sum("model, type", "dspy_tokens_used_total", _MODEL)},
            "cps",
            stacked=True,
        ),
        Panel(
            "Waiting for the rate limit",
            "How many threads wait because of a rate limit?",
            {"{{model}}": _sum("model", "dspy_rate_limit_wait_seconds_total", _MODEL)},
            "short",
        ),
    ],
    "Queues": [
        Panel(
            "Backlog",
            "How many jobs are unfinished, and what are they doing?",
            {"{{state}}": 'sum by (state) (max by (queue, state) (dspy_queue_jobs{queue=~"$variant|dspyq|other"}))'},
            stacked=True,
        ),
        Panel(
            "Waiting by queue",
            "Where do they wait?",
            {"{{queue}}": 'max by (queue) (dspy_queue_jobs{state="waiting"})'},
            stacked=True,
        ),
        Panel(
            "Age of the oldest job",
            "How long must a new job expect to wait?",
            {"{{queue}}": "max by (queue) (dspy_queue_oldest_job_age_seconds)"},
            "s",
        ),
        Panel(
            "Waiting by priority",
            "Who waits: people (low numbers) or batches (high ones)?",
            {"priority {{priority}}": "sum by (priority) (max by (queue, priority) (dspy_queue_waiting_jobs))"},
            width=6,
            stacked=True,
        ),
        Panel(
            "Paused queues",
            "How many workers take nothing from a queue, because its model cannot be called?",
            {"{{queue}}": "sum by (queue) (dspy_queue_paused)"},
            width=6,
            stacked=True,
        ),
        Panel(
            "Deliveries",
            "How often do workers take a job, and how often one again?",
            {"again: {{redelivered}}": f"sum by (redelivered) (rate(dspy_deliveries_total{_RATE}))"},
            "ops",
            width=6,
            stacked=True,
        ),
        Panel(
            "Jobs set aside",
            "How many jobs need a person?",
            {"dead jobs": "max(dspy_dead_jobs)"},
            width=6,
            steps=[(0, GREEN), (1, RED)],
        ),
    ],
    "Lanes": [
        Panel(
            "Lines of lanes",
            "How many model calls wait for a provider's batch interface?",
            {"{{model}} {{state}}": f"max by (model, state) (dspy_lane_lines{{{_MODEL}}})"},
            stacked=True,
        ),
        Panel(
            "Shipments",
            "What are the shipments of lanes waiting for?",
            {"{{state}}": f"sum by (state) (max by (model, state) (dspy_lane_shipments{{{_MODEL}}}))"},
            stacked=True,
        ),
        Panel(
            "Money held by lanes",
            "How much may the calls in lanes cost at most?",
            {"{{model}}": f"max by (model) (dspy_lane_held_usd{{{_MODEL}}})"},
            "currencyUSD",
            stacked=True,
        ),
        Panel(
            "Oldest batch at the provider",
            "How long have rows waited for a provider?",
            {"{{model}}": f"max by (model) (dspy_lane_oldest_shipment_seconds{{{_MODEL}}})"},
            "s",
            steps=[(0, GREEN), (90_000, RED)],
        ),
        Panel(
            "Time at the provider",
            "How long did providers take for the batches of the last day?",
            _quantiles("dspy_lane_seconds", _MODEL, "[1d]"),
            "s",
        ),
        Panel(
            "Lines that landed",
            "What becomes of lines in lanes?",
            {"{{outcome}}": f"sum by (outcome) (rate(dspy_lane_landed_total{{{_MODEL}}}{_RATE}))"},
            "reqps",
            stacked=True,
        ),
        Panel(
            "Lines without an outcome",
            "Why did providers not execute lines of the last day? They are shipped again, and then made live.",
            {"{{reason}}": f"sum by (reason) (increase(dspy_lane_unanswered_total{{{_MODEL}}}[1d]))"},
            stacked=True,
        ),
        Panel(
            "Lanes that do not go on",
            "How often in a row has a step failed, and which lanes does no worker run?",
            {
                "{{model}}: failures in a row": f"max by (model) (dspy_lane_repeated_failures{{{_MODEL}}})",
                "{{model}}: no worker": f"max by (model) (dspy_lane_unattended{{{_MODEL}}})",
            },
            steps=[(0, GREEN), (8, RED)],
        ),
        Panel(
            "Runs of batches that ended",
            "Did last night's batches finish?",
            {"{{program}} {{state}}": "max by (program, state) (increase(dspy_batches_ended_total[1d]))"},
        ),
    ],
    "Variants": [
        Panel(
            "Predictions by variant",
            "Is traffic divided as the weights say?",
            {"{{variant}}": _sum("variant", "dspy_predictions_total", _VARIANT)},
            "reqps",
            stacked=True,
        ),
        Panel(
            "Success by variant",
            "Does one variant fail more often?",
            {
                "{{variant}}": f"""{_sum("variant", "dspy_predictions_total", _VARIANT, 'status!="error"')}"""
                f" / {_sum('variant', 'dspy_predictions_total', _VARIANT)}"
            },
            "percentunit",
            maximum=1,
        ),
        Panel(
            "Answers by variant",
            "What do callers get, hits included?",
            {
                "{{variant}}: {{outcome}}": "max by (variant, outcome) (rate(dspy_variant_answers_total"
                f"{{{_VARIANT}}}{_RATE}))"
            },
            "reqps",
            stacked=True,
        ),
        Panel(
            "Cost per hour by variant",
            "What does each variant cost?",
            {"{{variant}}": f"{_COST_OF_VARIANTS} * 3600"},
            "currencyUSD",
            stacked=True,
        ),
        Panel(
            "Cost of a prediction",
            "Which variant costs more per prediction?",
            {"{{variant}}": f"{_COST_OF_VARIANTS} / {_sum('variant', 'dspy_predictions_total', _VARIANT)}"},
            "currencyUSD",
        ),
        Panel(
            "Quality by variant",
            "Which variant answers better, as the program's scorers see it?",
            {
                "{{variant}}: {{scorer}}": _sum("variant, scorer", "dspy_answer_quality_sum", _VARIANT)
                + " / "
                + _sum("variant, scorer", "dspy_answer_quality_count", _VARIANT)
            },
            "none",
        ),
    ],
    "Experiments": [
        Panel(
            "Verdicts",
            "What has each experiment found?",
            {"{{program}}, {{arm}}: {{outcome}}": "max by (program, arm, outcome) (dspy_experiment_verdict)"},
            kind="state-timeline",
            width=12,
            names=[(1, "the verdict", GREEN)],
        ),
        Panel(
            "Guards",
            "Has a challenger become worse by more than a margin?",
            {"{{program}}, {{arm}}: {{metric}}": f"max by ({_OF_METRIC}) (dspy_experiment_guard_breached)"},
            kind="state-timeline",
            width=12,
            names=[(0, "not breached", GREEN), (1, "breached", RED)],
        ),
        Panel(
            "Effects",
            "By how much does a challenger differ from the control, and within which interval?",
            {
                f"{{{{arm}}}}: {{{{metric}}}}{legend}": f"max by ({_OF_METRIC}) (dspy_experiment_{gauge}{{{_METRIC}}})"
                for gauge, legend in (("effect", ""), ("low", ", low end"), ("high", ", high end"))
            },
            "none",
            width=12,
            minimum=None,
        ),
        Panel(
            "Evidence of an effect",
            "How sure is it that there is one? 20 is 20 to 1.",
            {"{{arm}}: {{metric}}": f"max by ({_OF_METRIC}) (dspy_experiment_evidence{{{_METRIC}}})"},
            "none",
            width=12,
            steps=[(0, ORANGE), (20, GREEN)],
        ),
        Panel(
            "Differences of shadow runs",
            "By how much does a challenger's answer differ from the control's to the same question?",
            {
                f"{{{{arm}}}}: {{{{metric}}}}{legend}": f"max by ({_OF_METRIC}) (dspy_experiment_shadow_{gauge})"
                for gauge, legend in (("difference", ""), ("low", ", low end"), ("high", ", high end"))
            },
            "none",
            width=12,
            minimum=None,
        ),
        Panel(
            "Shadow runs",
            "What becomes of the questions that a challenger answers unseen?",
            {
                "{{arm}}: {{outcome}}": "max by (program, arm, outcome) "
                f"(rate(dspy_experiment_shadow_runs_total{_RATE}))"
            },
            "reqps",
            width=12,
        ),
        Panel(
            "Units by arm",
            "Do the arms get equal parts of the units?",
            {"{{program}}: {{arm}}": "max by (program, arm) (dspy_experiment_units)"},
            width=6,
        ),
        Panel(
            "Evidence against the sample ratio",
            "Are the parts too unequal for chance? From 1,000 on the experiment is broken.",
            {"{{program}}": "max by (program) (dspy_experiment_srm_evidence)"},
            "none",
            width=6,
            steps=[(0, GREEN), (1000, RED)],
        ),
        Panel(
            "Coverage",
            "What part of all units is enrolled?",
            {"{{program}}": "max by (program) (dspy_experiment_coverage)"},
            "percentunit",
            width=6,
            maximum=1,
        ),
        Panel(
            "Since the last look",
            "Does a worker look at the experiments?",
            {"{{program}}": "time() - max by (program) (dspy_experiment_look_timestamp_seconds)"},
            "s",
            width=6,
            steps=[(0, GREEN), (300, RED)],
        ),
    ],
    "HTTP": [
        Panel(
            "Requests over HTTP",
            "Is there traffic at the HTTP doors, and what do they answer? 0 is a client that left first.",
            {"{{status}}": f"sum by (status) (rate(dspyq_http_requests_total{_RATE}))"},
            "reqps",
            width=6,
            stacked=True,
        ),
        Panel(
            "Time over HTTP",
            "How long does a request take, with its wait for an answer?",
            _quantiles("dspyq_http_request_seconds", 'route=~".*predictions"'),
            "s",
            width=6,
        ),
        Panel(
            "Open requests",
            "How many requests wait, and how many clients listen to a stream?",
            {
                "wait": "sum(dspyq_http_waiting)",
                "streams": "sum(dspyq_http_streams)",
                "connections": "sum(dspyq_http_connections)",
            },
            width=6,
        ),
        Panel(
            "Refused over HTTP",
            "What do the doors refuse so that they go on answering?",
            {"{{why}}": f"sum by (why) (rate(dspyq_http_refused_total{_RATE}))"},
            "reqps",
            width=6,
            steps=[(0, GREEN), (0.01, RED)],
        ),
    ],
    "Workers": [
        Panel(
            "Jobs held",
            "How many jobs does each worker hold?",
            {"{{instance}}": "dspy_held_jobs"},
            width=6,
            stacked=True,
        ),
        Panel(
            "Idle beside waiting jobs",
            "Does a worker take nothing although it could?",
            {"{{instance}}": "dspy_consumer_stalled_seconds"},
            "s",
            width=6,
        ),
        Panel(
            "Survived failures",
            "Which failures did a worker survive?",
            {
                "{{kind}}": f"sum by (kind) (rate(dspy_tolerated_failures_total{_RATE}))",
                "settlements Redis does not know of": "sum(dspy_unsettled_calls)",
                "workers without Redis": "count(dspy_redis_up) - sum(dspy_redis_up)",
            },
            width=6,
        ),
        Panel(
            "Memory",
            "How much memory does each worker take?",
            {"{{instance}}": 'process_resident_memory_bytes{job="dspyq-worker"}'},
            "bytes",
            width=6,
        ),
        Panel(
            "Questions by complexity",
            "What kind of questions are asked?",
            {"{{category}}": f"sum by (category) (rate(dspy_question_complexity{_RATE}))"},
            "reqps",
            width=12,
            stacked=True,
        ),
        Panel(
            "Processor",
            "How many processors does each worker use?",
            {"{{instance}}": f'rate(process_cpu_seconds_total{{job="dspyq-worker"}}{_RATE})'},
            width=12,
        ),
    ],
}
