"""Calls in lanes: those of a tenant that are in no shipment are removed with their jobs, and all others are stated.

What is at a provider is stated with its file, batch and shipment: the provider deletes it, not Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dspyq.celery_app.revocation import revoke
from dspyq.config.settings import get_settings
from dspyq.guards.budget import Budget
from dspyq.lane.administration import LaneAdmin
from dspyq.lane.journal import LaneJournal
from dspyq.lane.line import LaneLine
from dspyq.lane.shipment import Shipment
from dspyq.retention.removal import Removal
from dspyq.store.clients import jobs_client, money_client
from dspyq.store.keys import lane_key
from dspyq.store.scripts import run_together
from dspyq.store.spines import each_spine

_WAITING = (
    "calls in lanes: {number:,}, of which {shipped:,} left for the provider or are about to; they end with their jobs"
)
_SALVAGED = "replies that were salvaged from a provider: they state no tenant, and end by themselves within a day"
#: States in which lines have landed, and files are not deleted yet.
_LANDING = frozenset({"collecting", "closing"})


def remove_open_lines(tenant: str, removal: Removal) -> None:
    """End the jobs of a tenant's calls that are in no shipment, remove the calls, and free what is held for them.

    Raises:
        redis.RedisError: If Redis does not answer; a repetition removes the rest.
    """
    for _ in each_spine():
        _remove_open_lines_here(tenant, removal)


def _remove_open_lines_here(tenant: str, removal: Removal) -> None:
    money = money_client()
    budget, admin = Budget(money, get_settings()), LaneAdmin(jobs_client())
    for model in admin.models():
        journal = admin.journal(model)
        for page in journal.every_line():
            own = {custom_id: line for custom_id, line in page.items() if line.tenant == tenant}
            opened = journal.open_among(list(own))
            tasks = sorted({own[custom_id].task for custom_id in opened})
            if tasks:  # first: a job that wakes would call again
                revoke(tasks)
            removed = journal.take_back_all(opened)  # of the others a worker has dropped some, or has just shipped them
            if removed:
                run_together(money, [budget.take_back(own[each].billed(model, each)) for each in removed])
            removal.calls += len(removed)


def state_lanes(is_wanted: Callable[[LaneLine], bool], removal: Removal) -> None:
    """State how many calls in lanes are wanted, what of them is at providers, and salvaged replies.

    Args:
        is_wanted: Returns True for a line that is stated.
        removal: States them as not reached.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    number, opened = 0, 0
    sent: list[str] = []
    holds_salvaged = False
    for _ in each_spine():
        client = jobs_client()
        admin = LaneAdmin(client)
        for model in admin.models():
            journal = admin.journal(model)
            own = {custom_id for page in journal.every_line() for custom_id, line in page.items() if is_wanted(line)}
            number += len(own)
            opened += len(journal.open_among(list(own)))
            sent += _sent(journal, own)
        holds_salvaged |= any(True for _ in client.scan_iter(lane_key("*", "salvaged"), count=1000))
    if number:
        removal.not_reached.append(_WAITING.format(number=number, shipped=number - opened))
    removal.not_reached += sent
    if holds_salvaged:
        removal.not_reached.append(_SALVAGED)


def _sent(journal: LaneJournal, own: set[str]) -> Iterator[str]:
    """Yield a sentence for each shipment that was sent and holds any of these lines, or may have held some."""
    for one in journal.shipments():
        if not (one.uploads or one.file_id or one.batch_id or one.tries):
            continue
        lines = sum(len(own.intersection(ids)) for ids in journal.all_ids_of(one.name))
        if lines:
            yield (
                f"at the provider: {lines:,} calls in {_named(one, journal.model)}; what is there is deleted once "
                f"it has landed; to end it sooner: dspyq lane cancel {one.name}"
            )
        elif one.state in _LANDING:
            yield (
                f"at the provider: {_named(one, journal.model)}, whose calls have landed and name no one any more; "
                "what is there is deleted when the shipment closes: see dspyq lane show"
            )


def _named(one: Shipment, model: str) -> str:
    """Return a shipment's name with its file and its batch at the provider, as far as they are known."""
    file = f", file {one.name}.jsonl ({one.file_id})" if one.file_id else ""
    if one.uploads and not one.file_id:
        file = f", perhaps file {one.name}.jsonl"  # its upload was begun, and its reply not seen
    batch = f", batch {one.batch_id}" if one.batch_id else ""
    return f"shipment {one.name} of {model}{file}{batch}"
