"""The bulk client over all spines: each question at its own."""

from __future__ import annotations

from collections.abc import Sequence

from dspyq.cache.claim import Claim
from dspyq.cache.moves import ask_where_they_are, find_runs
from dspyq.client.bulk import Bulk, TaskOfRequest, bulk_here
from dspyq.core.runtime import per_runtime
from dspyq.prediction.request import Request
from dspyq.store.spines import NoSpine, Spines, by_spine, on_each, place_of, process_spines, spread


class BulkOverSpines:
    """As ``Bulk``, over several spines: each question at its own, a part of the rows after the other."""

    def peek(self, requests: Sequence[Request]) -> list[Claim | None]:
        """As ``Bulk.peek``."""
        found = self._peek_former(requests)
        rest = [place for place in range(len(requests)) if place not in found]
        spines = _spines()
        for places, own in on_each(
            [requests[place] for place in rest], [spines.owner(requests[place].input_hash) for place in rest]
        ):
            found |= zip((rest[place] for place in places), bulk_here().peek(own), strict=True)
        return [found[place] for place in range(len(requests))]

    def ask(
        self, requests: Sequence[Request], task_ids: Sequence[str], *, priority: int, batch: str = ""
    ) -> list[Claim]:
        """As ``Bulk.ask``; the task ids lead to the spines of their questions."""

        def ask(own: list[Request], places: list[int]) -> list[Claim]:
            return bulk_here().ask(own, [task_ids[place] for place in places], priority=priority, batch=batch)

        def ask_former(own: list[Request], places: list[int]) -> list[Claim]:
            return bulk_here().ask_former(own, [task_ids[place] for place in places], priority=priority, batch=batch)

        return ask_where_they_are(requests, [request.input_hash for request in requests], ask, ask_former)

    def collect(self, task_ids: Sequence[str]) -> list[bytes | None]:
        """As ``Bulk.collect``."""
        find_runs(task_ids)
        return spread(task_ids, task_ids, lambda own, _: bulk_here().collect(own))

    def withdraw(self, asked: Sequence[TaskOfRequest], *, batch: str = "") -> int:
        """As ``Bulk.withdraw``."""
        withdrawn = 0
        for _, own in by_spine(asked, _places(asked)):
            withdrawn += bulk_here().withdraw(own, batch=batch)
        return withdrawn

    def recall(self, asked: Sequence[TaskOfRequest], *, batch: str = "") -> list[bool]:
        """As ``Bulk.recall``."""
        return spread(asked, _places(asked), lambda own, _: bulk_here().recall(own, batch=batch))

    def _peek_former(self, requests: Sequence[Request]) -> dict[int, Claim | None]:
        """Return the answers at former owners, by the places of their questions."""
        spines = _spines()
        moved = [(place, former) for place, each in enumerate(requests) if (former := spines.former(each.input_hash))]
        found: dict[int, Claim | None] = {}
        for places, own in on_each([requests[place] for place, _ in moved], [former for _, former in moved]):
            answers = zip(places, bulk_here().peek(own), strict=True)
            found |= {moved[place][0]: claim for place, claim in answers if claim is not None}
        return found


def _places(asked: Sequence[TaskOfRequest]) -> list[str]:
    find_runs(task_id for _, task_id in asked)
    return [place_of(request.input_hash, task_id) for request, task_id in asked]


def _spines() -> Spines:
    spines = process_spines()
    if spines is None:
        raise NoSpine("one Redis holds all questions")
    return spines


@per_runtime
def process_bulk() -> Bulk | BulkOverSpines:
    """Return this process's bulk client."""
    return bulk_here() if process_spines() is None else BulkOverSpines()
