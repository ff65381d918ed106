"""The path of a request: every form of a call of ``predict`` ends in this process's asker.

In production that looks a question up, joins its run, or sends a job. ``dspyq.testing`` puts another one in its place.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from kombu.exceptions import OperationalError
from redis import RedisError

from dspyq.cache.claim import Claim, Run
from dspyq.cache.claims import process_claims
from dspyq.cache.memory import cache_of
from dspyq.cache.moves import ask_where_they_are, refuse_old_list
from dspyq.celery_app.application import process_app
from dspyq.celery_app.task_ids import process_task_ids
from dspyq.client.bulk import CHUNK_ROWS
from dspyq.client.call_counters import process_calls
from dspyq.client.message_template import Outgoing
from dspyq.client.prediction_log import log_hit
from dspyq.client.publishing import make_job, publish
from dspyq.client.result import PredictionResult
from dspyq.client.spread_bulk import process_bulk
from dspyq.config.settings import get_settings
from dspyq.core.runtime import per_runtime
from dspyq.errors import InputsTooLarge, InvalidOption, RedisUnavailable
from dspyq.experiments.copies import is_behind, latest_of
from dspyq.experiments.exposure import Exposure
from dspyq.experiments.fence import ANY_STATE, StateChanged
from dspyq.experiments.known import process_states
from dspyq.experiments.tally import process_tally
from dspyq.prediction.prediction import CacheLevel
from dspyq.prediction.request import Request, check_task_id, enrol_again
from dspyq.store.clients import redis_errors
from dspyq.store.spines import id_beside, on_spine, process_spines
from dspyq.store.unit_index import are_units_indexed, note_units
from dspyq.streaming.joining import want_streams
from dspyq.tracing.propagation import note_shared
from dspyq.tracing.tracing import process_tracing

MOST_URGENT, LEAST_URGENT = 0, 9

#: Changes of an experiment during one call that are followed.
_MOST_CHANGES = 5

#: Options that make a call unique. It shares no other call's result: it is published like any
#: Celery task, and its worker looks the answer up.
OWN_ID_OPTIONS = frozenset({
    "task_id", "link", "link_error", "chord", "chain", "group_id", "countdown", "eta", "expires", "retries",
})  # fmt: skip


class Asker(Protocol):
    """Protocol of the object that answers requests, or sends them to be answered.

    Attributes:
        is_local: Whether it answers at once in the caller's thread, so that nothing needs to be kept off an event loop.
    """

    is_local: bool

    def find(self, request: Request, /) -> PredictionResult | None:
        """Return an answer that is available at once, if there is one."""

    def ask(self, request: Request, options: Mapping[str, Any]) -> PredictionResult:
        """Ask one question; the options are Celery's own."""

    def ask_many(
        self, requests: Sequence[Request], priority: int, task_ids: Sequence[str] | None = None
    ) -> list[PredictionResult]:
        """Ask many questions; return their handles in the same order.

        Args:
            requests: The questions.
            priority: The turn of all.
            task_ids: For each the task that answers it, should it begin one; where left out, new ones.
        """

    def result(self, task_id: str, **options: Any) -> PredictionResult:
        """Return the handle of a task; the options are those of Celery's ``AsyncResult``."""


class QueueAsker:
    """The caches, then the workers' queues.

    A message is made and sent with the look-up, in one round trip, unless the variant's last question was answered in
    Redis already: then the next may well be, and would not need it.
    """

    is_local = False

    def __init__(self) -> None:
        self._last_was_hit: dict[str, bool] = {}

    def find(self, request: Request) -> PredictionResult | None:
        """Return the answer in this process's memory cache, if any."""
        return _look_in_memory(request, time.monotonic())

    def ask(self, request: Request, options: Mapping[str, Any]) -> PredictionResult:
        """Look a plain call up, join its question's run, or begin one; send a call with an id of its own."""
        if OWN_ID_OPTIONS.isdisjoint(options):
            return self._ask_plain(request, options)
        _refuse_eager()
        return self._ask_with_own_id(request, dict(options))

    def ask_many(
        self, requests: Sequence[Request], priority: int, task_ids: Sequence[str] | None = None
    ) -> list[PredictionResult]:
        """Look questions up, and claim and send those without an answer or a run, in bulk."""
        given = task_ids or [process_task_ids().make() for _ in requests]
        ids = [id_beside(request.input_hash, each) for request, each in zip(requests, given, strict=True)]
        handles: list[PredictionResult] = []
        for start in range(0, len(requests), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            handles += self._ask_chunk(requests[rows], ids[rows], priority)
        return handles

    def result(self, task_id: str, **options: Any) -> PredictionResult:
        """Return the handle of a task."""
        return PredictionResult(task_id, **options)

    def claim_where_it_is(self, request: Request, task_id: str, options: Mapping[str, Any]) -> Claim:
        """Claim a question for a task at the Redis that it is asked at now, and send its job where that is its.

        Raises:
            RedisUnavailable: If this process has an old ``redis_urls``.
            redis.RedisError: If Redis does not answer.
        """
        spines = process_spines()
        if spines is None or spines.former(request.input_hash) is None:
            with on_spine(request.input_hash):
                claim = self._claim(request, task_id, options)
            refuse_old_list([claim])
            return claim

        def ask(*_: object) -> list[Claim]:
            return [self._claim(request, task_id, options)]

        return ask_where_they_are([request], [request.input_hash], ask, ask)[0]

    def _ask_plain(self, request: Request, options: Mapping[str, Any]) -> PredictionResult:
        asked_at = time.monotonic()
        if (hit := _look_in_memory(request, asked_at)) is not None:
            return hit
        _refuse_eager()
        with redis_errors("ask for the prediction"):
            for _ in range(_MOST_CHANGES):
                task_id = process_task_ids().make_for(request.input_hash)
                if request.unit is not None:
                    note_units([(request, task_id)])
                claim = self.claim_where_it_is(request, task_id, options)
                if claim.verdict != "stale":
                    break
                request = _enrolled_again(request, claim.task_id, claim.result)
            else:
                raise _changes_too_often(request)
            if request.is_streamed:
                want_streams(_joined([request], [claim]))
        process_calls().count_claim(claim.verdict, request.variant.model.name)
        return _handle(request.noted(task_id), claim, asked_at)

    def _ask_with_own_id(self, request: Request, options: dict[str, Any]) -> PredictionResult:
        chosen_id = options.pop("task_id", None)
        if chosen_id is not None:
            check_task_id(chosen_id)
        task_id = chosen_id or process_task_ids().make_for(request.input_hash)
        with redis_errors("send the prediction"):
            if "producer" in options:  # maybe of a batch, whose jobs are put, and may be refused, when it is flushed
                request = _enrolled_by_the_latest(request)
            for _ in range(_MOST_CHANGES):
                try:
                    if chosen_id is not None:
                        with on_spine(request.input_hash):
                            process_claims().prepare_own_id(request, task_id)
                    note_units([(request, task_id)])
                    return publish(Outgoing(request.noted(task_id), task_id, is_claimed=False), options)
                except StateChanged as change:
                    request = _enrolled_again(request, change.version, change.stored)
                except InvalidOption:  # another question has the id, or this one as a newer state has placed it
                    latest = _enrolled_by_the_latest(request, at_once=True)
                    if latest.input_hash == request.input_hash:
                        raise
                    request = latest
        raise _changes_too_often(request)

    def _claim(self, request: Request, task_id: str, options: Mapping[str, Any]) -> Claim:
        """Claim a question for a task, and send its job where that is its."""
        priority = options.get("priority", MOST_URGENT)
        queue = request.queue
        job = None
        if not self._last_was_hit.get(queue) and options.keys() <= {"priority"}:
            job = make_job(request, task_id, priority)
        if job is not None:
            claim = process_claims().ask(request, job)
        else:
            claim = process_claims().claim(request, task_id, priority=priority)
        self._last_was_hit[queue] = claim.verdict == "hit"
        if claim.verdict == "claim" and job is not None:
            process_calls().count_published(queue)
        elif claim.verdict == "claim":
            _publish_claimed(request, options, claim.task_id)
        elif claim.verdict == "urge":
            publish(Outgoing(request, claim.task_id, claim.batch), options)
        return claim

    def _ask_chunk(self, requests: Sequence[Request], task_ids: Sequence[str], priority: int) -> list[PredictionResult]:
        asked_at = time.monotonic()
        handles = [_look_in_memory(request, asked_at) for request in requests]
        missed = [index for index, handle in enumerate(handles) if handle is None]
        if missed:
            _refuse_eager()
            wanted = [requests[index] for index in missed]
            with redis_errors("ask for the predictions"):
                wanted, claims = _claim_many(wanted, [task_ids[index] for index in missed], priority)
                want_streams(_joined(wanted, claims))
            calls = Counter(
                (claim.verdict, request.variant.model.name) for claim, request in zip(claims, wanted, strict=True)
            )
            for (verdict, model), number in calls.items():
                process_calls().count_claim(verdict, model, number)
            for index, request, claim in zip(missed, wanted, claims, strict=True):
                handles[index] = _handle(request, claim, asked_at)
        return [handle for handle in handles if handle is not None]


def _claim_many(
    requests: Sequence[Request], task_ids: Sequence[str], priority: int
) -> tuple[list[Request], list[Claim]]:
    """Claim questions, and send the jobs of those that are theirs; return the calls with the variants they have now."""
    asked = [request.noted(task_id) for request, task_id in zip(requests, task_ids, strict=True)]
    claims = process_bulk().ask(asked, task_ids, priority=priority)
    for _ in range(_MOST_CHANGES):
        stale = [index for index, claim in enumerate(claims) if claim.verdict == "stale"]
        if not stale:
            return asked, claims
        for index in stale:
            claim = claims[index]
            asked[index] = _enrolled_again(asked[index], claim.task_id, claim.result).noted(task_ids[index])
        ids = [task_ids[index] for index in stale]
        again = process_bulk().ask([asked[index] for index in stale], ids, priority=priority)
        for index, claim in zip(stale, again, strict=True):
            claims[index] = claim
    raise _changes_too_often(requests[0])


def _joined(requests: Sequence[Request], claims: Sequence[Claim]) -> dict[str, str]:
    """Return the tasks whose text is to be streamed for callers that joined them, with their questions."""
    return {
        claim.task_id: request.input_hash
        for request, claim in zip(requests, claims, strict=True)
        if request.is_streamed and claim.verdict in {"join", "urge"}
    }


def _enrolled_by_the_latest(request: Request, *, at_once: bool = False) -> Request:
    """Return a call with the variant that the latest state, or one read within a second, gives it."""
    if request.seen == ANY_STATE:
        return request
    process_states().refresh(request.program.name, at_once=at_once)
    return enrol_again(request)


def _enrolled_again(request: Request, version: str, stored: bytes) -> Request:
    """Return a call with the variant of the state that it was refused with."""
    program, states = request.program.name, process_states()
    known = states.get(program)
    if known is not None and is_behind(version, known.version):
        with on_spine(request.input_hash):  # which may have missed a change
            version, stored = latest_of(program, version, stored)
    if not version:
        states.forget(program)
    elif not states.learn(program, version, stored, instead_of=request.seen):
        return enrol_again(request, is_by_weight=True)
    return enrol_again(request)


def _changes_too_often(request: Request) -> Exception:
    return RedisUnavailable(
        f"cannot ask for the prediction: the experiment of {request.program.name} changed {_MOST_CHANGES} times "
        "meanwhile; ask again"
    )


def process_asker() -> Asker:
    """Return this process's asker."""
    return _asker


def replace_asker(asker: Asker) -> Asker:
    """Replace this process's asker, in all of its threads; return the previous one."""
    global _asker
    before, _asker = _asker, asker
    return before


def _refuse_eager() -> None:
    """Refuse to send a job where Celery is to run tasks at once: a producer has no program to run."""
    # The settings changed in this process, not Celery's merged view, which would make each hit a tenth slower.
    if process_app().conf.changes.get("task_always_eager"):
        raise InvalidOption(
            "task_always_eager runs no prediction: wrap the test in dspyq.testing.answers(…), or in "
            "dspyq.testing.running_programs(lm=…) to run the real program in this process"
        )


def _look_in_memory(request: Request, asked_at: float) -> PredictionResult | None:
    if request.refresh:
        return None
    entry = cache_of(request.input_hash).get(request.input_hash, request.queue, request.tenant)
    if entry is None:
        return None
    if request.unit is not None and are_units_indexed():
        with redis_errors("note the unit"):
            note_units([(request, entry.task_id)])
    if request.exposure is not None:
        _count_hit(request, request.exposure, entry.task_id, asked_at)
    if _are_hits_noted():
        _note_hit(request, entry.task_id, "memory", asked_at)
    handle = PredictionResult.of_request(request, entry.task_id, asked_at=asked_at, cache_level="memory")
    return handle.with_answer(entry.payload)


def _handle(request: Request, claim: Claim, asked_at: float) -> PredictionResult:
    if claim.verdict == "hit":
        if request.exposure is not None and not claim.batch:
            _count_hit(request, request.exposure, claim.task_id, asked_at)
        if _are_hits_noted():
            _note_hit(request, claim.task_id, "redis", asked_at)
        handle = PredictionResult.of_request(request, claim.task_id, asked_at=asked_at, cache_level="redis")
        return handle.with_answer(claim.result, claim.milliseconds_left)
    if claim.verdict == "damaged":
        return PredictionResult.of_request(request, claim.task_id, asked_at=asked_at).with_answer(claim.result)
    level: CacheLevel | None = None if claim.verdict == "claim" else "joined"
    if level is not None:
        note_shared(level, claim.task_id)
    return PredictionResult.of_request(request, claim.task_id, asked_at=asked_at, cache_level=level)


def _publish_claimed(request: Request, options: Mapping[str, Any], task_id: str) -> None:
    try:
        publish(Outgoing(request, task_id), options)
    except (OperationalError, RedisError, OSError, InputsTooLarge):
        # It may have been sent despite the error; then the claim stays. Redis may be down: then the claim expires by
        # itself, after delivery.claim_timeout_seconds.
        with suppress(RedisError), on_spine(request.input_hash):
            process_claims().release(request, Run(task_id))
        raise


def _note_hit(request: Request, task_id: str, level: CacheLevel, asked_at: float) -> None:
    """Log and trace a cache hit here: no worker sees it."""
    note_shared(level, task_id)
    log_hit(request, task_id, level, asked_at)


def _count_hit(request: Request, exposure: Exposure, task_id: str, asked_at: float) -> None:
    """Count a hit for its experiment."""
    waited_seconds = time.monotonic() - asked_at
    state = process_states().get(exposure.program)
    longest = state.slow_wait_seconds if state else None
    served = "" if state and not state.tracks_served else task_id
    is_slow = longest is not None and waited_seconds > longest
    with on_spine(request.input_hash):  # where the scores of the answer are
        process_tally().count(exposure, served, waited_seconds, is_slow=is_slow)


@per_runtime(is_kept=True)
def _are_hits_noted() -> bool:
    return process_tracing() is not None or get_settings().logging.producer_entries


_asker: Asker = QueueAsker()
