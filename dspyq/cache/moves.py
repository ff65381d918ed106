"""Questions whose bucket has moved to another Redis, and their runs: asked and found at both owners.

The former owner is asked first: it has the answer, or a run to join; or it marks the bucket as moved, and the question
is asked at its owner. The mark keeps processes that still run with the old list from claiming it at the former owner.

A job may be elsewhere than its question is asked now: at the former owner, where an earlier list had it put, or where
its id leads, if it was sent by its task's name alone. Its worker claims the question at the former owner as long as
that has no mark, for then all others find its run there. Else it only looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from dspyq.cache.claim import Claim, Run
from dspyq.cache.claims import process_claims
from dspyq.core.runtime import per_runtime
from dspyq.errors import RedisUnavailable
from dspyq.prediction.request import Request
from dspyq.store.clients import jobs_client
from dspyq.store.keys import job_key, key, result_key
from dspyq.store.spines import Spine, Spines, bucket_of, current_spine, on_each, process_spines

Item = TypeVar("Item")
AskOnSpine = Callable[[list[Item], list[int]], Sequence[Claim]]


def ask_where_they_are(
    items: Sequence[Item], hashes: Sequence[str], ask: AskOnSpine[Item], ask_former: AskOnSpine[Item]
) -> list[Claim]:
    """Ask questions, each at its owner; those whose bucket has moved at their former owner first.

    Args:
        items: What to ask.
        hashes: The input hash of each.
        ask: Function of items of one spine and their places among all, run on that spine.
        ask_former: As ``ask``, for the former owner.

    Raises:
        RedisUnavailable: If another process has moved some: this one has an old ``redis_urls``.
        redis.RedisError: If Redis does not answer.
    """
    spines = process_spines()
    if spines is None:
        return list(ask(list(items), list(range(len(items)))))
    claims: dict[int, Claim] = {}

    def ask_at(places: list[int], owners: Sequence[Spine], how: AskOnSpine[Item]) -> None:
        for found, _ in on_each(places, owners):
            own = [places[each] for each in found]
            answers = how([items[place] for place in own], own)
            for place, claim in zip(own, answers, strict=True):
                claims[place] = claim
                note_run(spines, hashes[place], claim)

    formers = {place: former for place, each in enumerate(hashes) if (former := spines.former(each)) is not None}
    ask_at(list(formers), list(formers.values()), ask_former)
    rest = [place for place in range(len(items)) if place not in claims or claims[place].verdict == "moved"]
    owners = [spines.owner(hashes[place]) for place in rest]
    for owner in {owners[index] for index, place in enumerate(rest) if place in formers}:
        with owner.runtime.active():
            _own_marks_are_gone()
    ask_at(rest, owners, ask)
    refuse_old_list(claims.values())
    return [claims[place] for place in range(len(items))]


def look_where_it_is(request: Request, run: Run, *, is_first_look: bool) -> Claim:
    """Look a question up for a worker about to run its job, which is on the active spine, at all of its owners.

    Args:
        request: The question.
        run: The worker's run.
        is_first_look: As of ``Claims.look_up``.

    Returns:
        As ``Claims.look_up``; ``moved`` where no task answers it and it cannot be claimed from here.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    spines, here, claims = process_spines(), current_spine(), process_claims()
    places = () if spines is None else spines.places(request.input_hash)
    if here is not None and here is places[-1]:
        for former in places[:-1]:
            found = _look_on(former, request, is_first_look=is_first_look)
            if found.verdict != "moved":
                return found
            _own_marks_are_gone()
        return claims.look_up(request, run, is_first_look=is_first_look)
    found = claims.look_up(request, run, is_first_look=is_first_look)
    for place in places:
        if found.verdict == "moved" and place is not here:
            found = _look_on(place, request, is_first_look=is_first_look)
    return found


def _look_on(spine: Spine, request: Request, *, is_first_look: bool) -> Claim:
    with spine.runtime.active():
        return process_claims().look_on(request, is_first_look=is_first_look)


def refuse_old_list(claims: Iterable[Claim]) -> None:
    """Refuse questions that belong to another Redis.

    Raises:
        RedisUnavailable: If one of them does.
    """
    if any(claim.verdict == "moved" for claim in claims):
        raise RedisUnavailable(
            "cannot ask for the prediction: this process has an old redis_urls, and others have moved the question to "
            "another Redis already: restart this process with the new redis_urls, then ask again"
        )


def note_run(spines: Spines, input_hash: str, claim: Claim) -> None:
    """Note on which spine a run of a question that has moved is: the active one.

    A run whose id its caller chose is found by that id alone, as ever.
    """
    here = current_spine()
    is_run = claim.verdict in {"join", "urge", "claim"}
    if is_run and here and spines.former(input_hash) and bucket_of(claim.task_id) == bucket_of(input_hash):
        spines.note(claim.task_id, here)


def find_runs(task_ids: Iterable[str]) -> None:
    """Look for the runs and results whose ids have moved, at both owners, and note where they are.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    spines = process_spines()
    if spines is None or not spines.moved:
        return
    looked_for = {each: spines.places(each) for each in task_ids if is_to_find(each)}
    for turn in range(2):
        unknown = [each for each in looked_for if not spines.is_noted(each)]
        for _, ids in on_each(unknown, [looked_for[each][turn] for each in unknown]):
            pipeline, here = jobs_client().pipeline(transaction=False), current_spine()
            for task_id in ids:
                pipeline.exists(job_key(task_id), result_key(task_id))
            for task_id, is_there in zip(ids, pipeline.execute(), strict=True):
                if is_there and here:
                    spines.note(task_id, here)


def is_to_find(task_id: str) -> bool:
    """Return True if ``find_runs`` has to ask Redis for a run."""
    spines = process_spines()
    return spines is not None and spines.former(task_id) is not None and not spines.is_noted(task_id)


@per_runtime(is_of_part=True)
def _own_marks_are_gone() -> bool:
    """Remove the marks of buckets that this spine once lost and owns again."""
    spines, here = process_spines(), current_spine()
    if spines is not None and here is not None:
        pipeline = jobs_client().pipeline(transaction=False)
        for bucket in set(spines.buckets(here)) & set(spines.moved):
            pipeline.setbit(key("moved-buckets"), bucket, 0)
        pipeline.execute()
    return True
