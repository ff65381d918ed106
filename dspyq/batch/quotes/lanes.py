"""Quote of a batch's lanes: cost, rounds, shipments and time of the provider's lane and of flex, beside live calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dspyq.batch.quotes.estimate import Interval, add_up
from dspyq.batch.quotes.quote import Quote, VariantQuote
from dspyq.batch.registry import process_registry
from dspyq.config.lane_faults import find_faults_of_lane
from dspyq.config.models import Model
from dspyq.config.programs import Program
from dspyq.lane.journal import LaneJournal
from dspyq.store.clients import jobs_client
from dspyq.store.spines import each_spine

#: What the batch interface and the flex tier save where nothing is stated.
_USUAL_SHARE = 0.5
_BYTES_PER_TOKEN = 4
_TOKENS_PER_PRICE = 1_000_000
#: With fewer shipments, the time of one is unknown.
_LEAST_SHIPMENTS = 3

HourVerdict = Literal["holds", "goes live in part", "goes live", "cannot be kept", "unknown"]


@dataclass(frozen=True)
class LaneQuote:
    """Quote of one lane.

    Attributes:
        lane: ``live``, ``provider`` or ``flex``.
        fault: Why the batch cannot have it; empty if it can.
        cost_usd: Its cost; None if a price is unknown.
        rounds: Rounds at the provider: calls that wait for each other; None if unknown. 0 where no call waits.
        shipments: Batches at the provider, at least; None if unknown.
        enqueued_tokens: The most prompt tokens that wait at the provider at once; None where none do.
        p50_seconds: Half of the model's past shipments took no longer; None with too few of them.
        p95_seconds: 19 of 20 took no longer; None with too few.
    """

    lane: str
    fault: str = ""
    cost_usd: Interval | None = None
    rounds: int | None = 0
    shipments: int | None = 0
    enqueued_tokens: int | None = None
    p50_seconds: float | None = None
    p95_seconds: float | None = None


@dataclass(frozen=True)
class HourQuote:
    """Quote of the hour by which a batch is to be done.

    Attributes:
        finish_by: The hour and its time zone.
        seconds: Seconds until then.
        verdict: ``holds``: the lane is done by then, by its history; ``goes live in part``: some shipments come later;
            ``goes live``: even half of them do; ``cannot be kept``: live calls alone take longer.
        best_usd: Cost if the lane is done in time.
        worst_usd: Cost if the provider bills all and returns nothing in time, so that all is paid live too.
    """

    finish_by: str
    seconds: float
    verdict: HourVerdict
    best_usd: float | None
    worst_usd: float | None


def quote_lanes(quote: Quote, program: Program, variant: str | None) -> list[LaneQuote]:
    """Return the quotes of live calls, of the provider's lane and of the flex tier.

    Args:
        quote: The batch's quote.
        program: Its program.
        variant: The variant that answers all rows; each row's own where left out.
    """
    parts = [part for part in quote.variants if part.new]
    live = LaneQuote("live", cost_usd=_cost(program, parts, "live"))
    flex = LaneQuote("flex", cost_usd=_cost(program, parts, "flex"))
    fault = next(find_faults_of_lane("provider", program, variant), "")
    if fault or not parts:
        return [live, LaneQuote("provider", fault=fault), flex]
    return [live, _provider(program, parts), flex]


def quote_hour(
    lanes: Sequence[LaneQuote], lane: str, hour: tuple[str, str], seconds: float, live_seconds: float | None
) -> HourQuote:
    """Return the quote of an hour.

    Args:
        lanes: Quotes of the lanes.
        lane: The lane that is asked for.
        hour: The hour and its time zone.
        seconds: Seconds until then.
        live_seconds: What all rows would take live; None if unknown.
    """
    by_name = {one.lane: one for one in lanes}
    own, live = by_name[lane], by_name["live"]
    best, at_most = _expected(own.cost_usd), _expected(live.cost_usd)
    worst = None if best is None or at_most is None else at_most + (best if lane == "provider" else 0.0)
    return HourQuote(" ".join(hour), seconds, _verdict(own, seconds, live_seconds), best, worst)


def _verdict(own: LaneQuote, seconds: float, live_seconds: float | None) -> HourVerdict:
    if live_seconds is not None and live_seconds > seconds:
        return "cannot be kept"
    if own.lane != "provider":
        return "unknown" if live_seconds is None else "holds"
    if own.p50_seconds is None or own.p95_seconds is None or own.rounds is None:
        return "unknown"
    left = seconds - (live_seconds or 0.0)
    if own.rounds * own.p95_seconds <= left:
        return "holds"
    return "goes live in part" if own.rounds * own.p50_seconds <= left else "goes live"


def _provider(program: Program, parts: Sequence[VariantQuote]) -> LaneQuote:
    rounds = _rounds(program, parts)
    shipments = enqueued = 0
    took: list[float] = []
    for name, model in {program.variants[part.variant].model.name: _model(program, part) for part in parts}.items():
        of = [part for part in parts if _model(program, part).name == name]
        rows, tokens = sum(part.new for part in of), sum(part.estimate.prompt_tokens.high for part in of)
        each_round = tokens / max(1, rounds or 1)
        fits = min(model.batch_max_bytes / _BYTES_PER_TOKEN, model.batch_enqueued_tokens or math.inf)
        shipments += max(math.ceil(rows / model.batch_max_lines), math.ceil(each_round / fits))
        enqueued += math.ceil(min(each_round, model.batch_enqueued_tokens or math.inf))
        for _ in each_spine():
            past = LaneJournal(jobs_client(), name).past()
            took += [one.ended_at - one.submitted_at for one in past if one.ended_at and one.submitted_at]
    took.sort()
    known = len(took) >= _LEAST_SHIPMENTS
    return LaneQuote(
        "provider",
        cost_usd=_cost(program, parts, "provider"),
        rounds=rounds,
        shipments=None if rounds is None else rounds * shipments,
        enqueued_tokens=enqueued,
        p50_seconds=took[(len(took) - 1) // 2] if known else None,
        p95_seconds=took[math.ceil(0.95 * len(took)) - 1] if known else None,
    )


def _rounds(program: Program, parts: Sequence[VariantQuote]) -> int | None:
    """Return how often a row waits: as in earlier batches of the program, or once for a signature's one call."""
    past = [
        int(batch.facts.get("round", 0))
        for batch in process_registry().all()
        if batch.facts.get("lane") == "provider" and batch.facts.get("program") == program.name
    ]
    if known := [rounds for rounds in past if rounds]:
        return known[0]
    is_one_call = all(program.served[part.variant].class_path is None for part in parts)
    return 1 if is_one_call else None


def _cost(program: Program, parts: Sequence[VariantQuote], lane: str) -> Interval | None:
    costs = [_of_variant(part, _model(program, part), lane) for part in parts]
    known = [cost for cost in costs if cost is not None]
    return add_up(known) if len(known) == len(costs) else None


def _of_variant(part: VariantQuote, model: Model, lane: str) -> Interval | None:
    """Return a variant's cost in a lane. With stated prices it comes from tokens, so that no past lane shows in it."""
    live = part.estimate.cost_usd
    prices = model.input_usd_per_million_tokens, model.output_usd_per_million_tokens
    if prices[0] is not None and prices[1] is not None:
        live = add_up([
            part.estimate.prompt_tokens.scaled(prices[0] / _TOKENS_PER_PRICE),
            part.estimate.completion_tokens.scaled(prices[1] / _TOKENS_PER_PRICE),
        ])  # fmt: skip
    if live is None or lane == "live":
        return live
    if lane == "provider":
        return live.scaled(1 - (_USUAL_SHARE if model.batch_discount is None else model.batch_discount))
    return live.scaled(model.service_tier_price_factors.get("flex", 1.0 if prices[0] is not None else _USUAL_SHARE))


def _model(program: Program, part: VariantQuote) -> Model:
    return program.variants[part.variant].model


def _expected(cost: Interval | None) -> float | None:
    if cost is None:
        return None
    return cost.high if cost.expected is None else cost.expected
