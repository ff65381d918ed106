"""``dspyq batch run --dry-run``: print a batch's quote."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from dspyq.batch.clusters import check_options
from dspyq.batch.files.source import open_source
from dspyq.batch.finish_by import next_time
from dspyq.batch.quotes.estimate import Interval
from dspyq.batch.quotes.lanes import HourQuote, LaneQuote, quote_hour, quote_lanes
from dspyq.batch.quotes.live_time import live_seconds
from dspyq.batch.quotes.quote import Allowance, Fit, Quote, QuoteOptions, VariantQuote, take_quote
from dspyq.config.programs import Program
from dspyq.config.settings import get_settings
from dspyq.console.output import console, dollars, print_json, print_table
from dspyq.core.money import to_usd
from dspyq.core.scratch import scratch_folder
from dspyq.prediction.request import find_program
from dspyq.store.clients import money_client, redis_errors

_LANE_COLUMNS = ["lane", "cost", "rounds", "shipments", "tokens waiting", "a shipment takes, p50, p95", ""]
_VERDICTS = {
    "holds": "by its history it is done by then",
    "goes live in part": "by its history some shipments come later, and their rows go live before",
    "goes live": "by its history no shipment is back by then: all rows go live before",
    "cannot be kept": "no lane can keep it: live calls alone would take longer",
    "unknown": "there is no history to say; what is not there in time goes live before",
}
#: How long a reply at the flex tier may take, as OpenAI recommends to wait.
_FLEX_SECONDS = 900
_BASES = {
    "answers": "{runs:,} answers in the cache",
    "statistics": "the mean of {runs:,} runs",
    "bound": "at most, one call a row: nothing has run yet",
}


def show_quote(
    input_path: Path | None,
    program: str | None,
    options: QuoteOptions,
    *,
    format: str | None,  # noqa: A002 - the option's name
    as_json: bool,
) -> Quote:
    """Read a batch's input and print its quote, without any call of a model.

    Args:
        input_path: The input; None for standard input.
        program: The program's name; None if only one is configured.
        options: The batch's options.
        format: The input's format, if its file name does not show it.
        as_json: Whether to print JSON.
    """
    asked = find_program(program)
    check_options(options, asked)
    with scratch_folder() as folder:
        source = open_source(input_path, spool=folder / "input", format=format)
        quote = take_quote(
            source.rows(asked.as_served(options.variant), options.cluster),
            asked,
            options,
            _allowances(asked.name, options.tenant),
        )
    with redis_errors("read the lanes"):
        lanes = quote_lanes(quote, asked, options.variant)
        hour = _hour(lanes, options, asked, quote)
    if as_json:
        print_json({**quote.to_json(), "lanes": [asdict(each) for each in lanes], "hour": hour and asdict(hour)})
        return quote
    print_quote(quote)
    if quote.new:
        console.print()
        print_table("Lanes", _LANE_COLUMNS, [_lane_row(each) for each in lanes])
    if options.lane == "flex" and (remark := _timeout_remark(asked, options.variant)):
        console.print(remark)
    if hour is not None:
        console.print(_hour_line(hour))
    return quote


def print_quote(quote: Quote) -> None:
    """Print a quote as tables."""
    counts = [
        ["rows", f"{quote.rows:,}"],
        *([f"faulty: {kind}", f"{number:,}"] for kind, number in quote.faults.items()),
        ["duplicates, free", f"{quote.duplicates:,}"],
        ["cached, free", f"{quote.cached:,}"],
        ["being answered, free", f"{quote.running:,}"],
        ["to be paid", f"{quote.new:,}"],
    ]
    print_table(f"Batch for {quote.program}", ["", ""], counts)
    columns = ["variant", "to be paid", "tokens in", "tokens out", "cost", "from"]
    rows = [_variant_row(part) for part in quote.variants if part.new]
    if len(rows) > 1:
        cost = _usd(quote.cost_usd)
        rows.append(["all", f"{quote.new:,}", _count(quote.prompt_tokens), _count(quote.completion_tokens), cost, ""])
    if rows:
        console.print()
        print_table("What it comes to, and the interval that holds it 95 times in 100", columns, rows)
    console.print()
    console.print(_duration_line(quote))
    if quote.fits:
        console.print()
        print_table("Limits", ["", "left", ""], [_fit_row(fit) for fit in quote.fits])


def _hour(lanes: Sequence[LaneQuote], options: QuoteOptions, program: Program, quote: Quote) -> HourQuote | None:
    if not options.lane or options.finish_by is None:
        return None
    now = time.time()
    seconds = next_time(*options.finish_by, now) - now
    asked = [each for each in program.variants.values() if options.variant in {None, each.name}]
    live = live_seconds(program, asked, quote.new) if quote.threads else None
    return quote_hour(lanes, options.lane, options.finish_by, seconds, live)


def _lane_row(lane: LaneQuote) -> list[str]:
    if lane.fault:
        return [lane.lane, "", "", "", "", "", lane.fault]
    counts = ["" if lane.lane != "provider" else _number(each) for each in (lane.rounds, lane.shipments)]
    tokens = "" if lane.enqueued_tokens is None else f"≤ {lane.enqueued_tokens:,}"
    took = "" if lane.p50_seconds is None else f"{duration(lane.p50_seconds)}, {duration(lane.p95_seconds or 0.0)}"
    return [lane.lane, _usd(lane.cost_usd), *counts, tokens, took, ""]


def _number(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


def _hour_line(hour: HourQuote) -> str:
    best, worst = ("unknown" if each is None else dollars(each) for each in (hour.best_usd, hour.worst_usd))
    what = f"Done by {hour.finish_by}, in {duration(hour.seconds)}: {_VERDICTS[hour.verdict]}."
    return f"{what} At best {best}, at worst {worst}."


def _timeout_remark(program: Program, variant: str | None) -> str:
    for each in program.variants.values():
        if variant in {None, each.name} and each.model.timeout_seconds < _FLEX_SECONDS:
            return (
                f"models.{each.model.name}.timeout_seconds is {each.model.timeout_seconds:g}: replies at the flex tier "
                f"may take minutes; {_FLEX_SECONDS} is what OpenAI recommends"
            )
    return ""


def _allowances(program: str, tenant: str | None) -> list[Allowance]:
    from dspyq.guards.limits import Limits  # noqa: PLC0415 - as the other commands import what they need

    with redis_errors("read the budgets"):
        limits = Limits(money_client(), get_settings())
        accounts = [*limits.accounts(), *(limits.of_tenants([tenant]) if tenant else [])]
    scopes = ("all", f"program:{program}", f"tenant:{tenant}")
    return [
        Allowance(f"{account.scope} {account.label}", account.scope, to_usd(account.free_nano_usd))
        for account in accounts
        if account.free_nano_usd is not None
        and (account.scope in scopes or account.scope.startswith(f"variant:{program}."))
    ]


def _variant_row(part: VariantQuote) -> list[str]:
    estimate = part.estimate
    basis = _BASES[estimate.basis].format(runs=estimate.runs)
    tokens = [_count(estimate.prompt_tokens), _count(estimate.completion_tokens)]
    return [part.variant, f"{part.new:,}", *tokens, _usd(estimate.cost_usd), basis]


def _duration_line(quote: Quote) -> str:
    if not quote.new:
        return "Nothing is to be paid: it takes as long as reading and writing do."
    if not quote.threads:
        return "Time: unknown, for no worker that serves it answers now (celery -A dspyq worker)."
    is_counted = get_settings().workers.remote_control
    if (quote.seconds is None or quote.seconds.expected is None) and not is_counted:
        return "Time: unknown, for nothing has run yet."
    if quote.seconds is None or quote.seconds.expected is None:
        return f"Time: unknown, for nothing has run yet; workers run {quote.threads:,} at once now."
    expected, low, high = (duration(each) for each in (quote.seconds.expected, quote.seconds.low, quote.seconds.high))
    if not is_counted:
        of_one = f"with one worker of {quote.threads:,} threads"
        return f"Time: {expected} ({low} to {high}) {of_one}; workers.remote_control is off, so they are not counted."
    return f"Time: {expected} ({low} to {high}) with the {quote.threads:,} at once that workers run now."


def _fit_row(fit: Fit) -> list[str]:
    if fit.available is None:
        left = "no end"
    else:
        left = dollars(fit.available) if fit.unit == "usd" else duration(fit.available)
    return [fit.name, left, fit.verdict]


def _usd(cost: Interval | None) -> str:
    if cost is None:
        return "unknown"
    if cost.expected is None:
        return f"≤ {dollars(cost.high)}"
    return f"{dollars(cost.expected)} ({dollars(cost.low)} to {dollars(cost.high)})"


def _count(tokens: Interval) -> str:
    if tokens.expected is None:
        return f"≤ {tokens.high:,.0f}"
    return f"{tokens.expected:,.0f} ({tokens.low:,.0f} to {tokens.high:,.0f})"


def duration(seconds: float) -> str:
    """Return a duration for people: in the two largest units."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004 - an hour
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"
