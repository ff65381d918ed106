"""The bulk client over all spines: each question at its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dspyq.cache.claim import Claim
from dspyq.client.bulk import Bulk, TaskOfRequest, bulk_here
from dspyq.core.runtime import per_runtime
from dspyq.prediction.request import Request
from dspyq.store.spines import by_spine, process_spines, spread


class BulkOverSpines:
    """As ``Bulk``, over several spines: each question at its own, a part of the rows after the other."""

    def peek(self, requests: Sequence[Request]) -> list[Claim | None]:
        """As ``Bulk.peek``."""
        return spread(requests, _questions(requests), lambda own, _: bulk_here().peek(own))

    def ask(
        self, requests: Sequence[Request], task_ids: Sequence[str], *, priority: int, batch: str = ""
    ) -> list[Claim]:
        """As ``Bulk.ask``; the task ids lead to the spines of their questions."""
        return spread(
            requests,
            _questions(requests),
            lambda own, places: bulk_here().ask(
                own, [task_ids[place] for place in places], priority=priority, batch=batch
            ),
        )

    def collect(self, task_ids: Sequence[str]) -> list[bytes | None]:
        """As ``Bulk.collect``."""
        return spread(task_ids, task_ids, lambda own, _: bulk_here().collect(own))

    def withdraw(self, asked: Sequence[TaskOfRequest], *, batch: str = "") -> int:
        """As ``Bulk.withdraw``."""
        hashes = [request.input_hash for request, _ in asked]
        return sum(bulk_here().withdraw(own, batch=batch) for _, own in by_spine(asked, hashes))

    def recall(self, asked: Sequence[TaskOfRequest], *, batch: str = "") -> list[bool]:
        """As ``Bulk.recall``."""
        hashes = [request.input_hash for request, _ in asked]
        return spread(asked, hashes, lambda own, _: bulk_here().recall(own, batch=batch))


def _questions(requests: Iterable[Request]) -> list[str]:
    return [request.input_hash for request in requests]


@per_runtime
def process_bulk() -> Bulk | BulkOverSpines:
    """Return this process's bulk client."""
    return bulk_here() if process_spines() is None else BulkOverSpines()
