"""``dspyq spines``: the Redis servers over which questions are spread."""

from __future__ import annotations

from typing import Any

from dspyq.console.output import JsonOption, console, percent, print_json, print_table
from dspyq.delivery.spine_holdings import SpineHoldings, read_spines
from dspyq.store.clients import redis_errors


def spines(as_json: JsonOption = False) -> None:
    """Show the Redis servers over which questions are spread: their shares, workers, jobs and answers.

    While `former_redis_urls` is set, also which share of the questions moves to a server or from it. A server that is
    drained gets no new questions; once it has no jobs, and its answers have expired, it can be switched off.

    Example: `dspyq spines` or `dspyq spines --json`
    """
    with redis_errors("look at the servers"):
        found = read_spines()
    if as_json:
        print_json([_described(each) for each in found])
        return
    titles = [
        "server",
        "questions",
        "moved here",
        "moved away",
        "workers",
        "waiting",
        "running",
        "delayed",
        "dead",
        "keys",
        "state",
    ]
    print_table("Redis servers", titles, [_cells(each) for each in found])
    for each in found:
        if each.is_draining and each.is_empty:
            console.print(f"{each.name} holds no jobs: switch it off once the longest cache_ttl_seconds has passed")


def _described(each: SpineHoldings) -> dict[str, Any]:
    return {
        "server": each.name,
        "share": each.share,
        "share_moved_here": each.moved_in,
        "share_moved_away": each.moved_out,
        "workers": each.workers,
        "waiting": each.waiting,
        "running": each.running,
        "delayed": each.delayed,
        "dead": each.dead,
        "keys": each.keys,
        "is_draining": each.is_draining,
        "is_empty": each.is_empty,
    }


def _cells(each: SpineHoldings) -> list[str]:
    numbers = [each.workers, each.waiting, each.running, each.delayed, each.dead, each.keys]
    shares = [percent(share) if share else "" for share in (each.moved_in, each.moved_out)]
    state = "empty" if each.is_draining and each.is_empty else "draining" if each.is_draining else ""
    return [each.name, percent(each.share), *shares, *(f"{number:,}" for number in numbers), state]
