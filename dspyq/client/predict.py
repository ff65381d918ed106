"""``predict``: the one Celery task, and every way to call it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from typing import Any

from celery import Task
from celery.canvas import maybe_signature
from celery.exceptions import Ignore
from celery.utils import uuid
from celery.utils.functional import maybe_list
from kombu.exceptions import OperationalError
from redis import RedisError

from dspyq.cache.claims import Claim, Run, process_claims
from dspyq.cache.memory import process_cache
from dspyq.celery_app.application import HEADER, TASK_NAME, app
from dspyq.client.bulk import CHUNK_ROWS, process_bulk
from dspyq.client.call_counters import process_calls
from dspyq.client.prediction_log import log_hit
from dspyq.client.result import PredictionResult
from dspyq.delivery.task import DeliveredTask
from dspyq.errors import InvalidInputs, InvalidOption, InvalidRequest
from dspyq.prediction.prediction import CacheLevel, is_prediction
from dspyq.prediction.request import Request, build_request, find_program
from dspyq.store.clients import redis_errors
from dspyq.tracing.propagation import note_shared, publishing, trace_headers

MOST_URGENT, LEAST_URGENT = 0, 9

#: Options that give a call an id or a fate of its own. Such a call shares no other's result: it is published like any
#: Celery task, and its worker looks the answer up.
_OWN_ID_OPTIONS = frozenset({
    "task_id", "link", "link_error", "chord", "chain", "group_id", "countdown", "eta", "expires", "retries",
})  # fmt: skip
#: What else Celery's users and its canvas pass.
_CELERY_OPTIONS = _OWN_ID_OPTIONS | {
    "add_to_parent", "argsrepr", "compression", "connection", "group_index", "headers", "ignore_result", "kwargsrepr",
    "origin", "parent_id", "priority", "producer", "publisher", "replaced_task_nesting", "reply_to", "result_cls",
    "retry", "retry_policy", "root_id", "serializer", "shadow", "soft_time_limit", "stamped_headers", "time_limit",
}  # fmt: skip
_PREDICTION_OPTIONS = frozenset({"program", "variant", "unit", "refresh", "request_id"})

Body = Callable[[Task, Mapping[str, Any]], dict[str, Any]]


class Predict(DeliveredTask):
    """Ask a program for a prediction.

    ``predict.delay(question="…")`` takes the program's input fields and nothing else. How it is answered are options of
    ``apply_async``: ``program``, ``variant``, ``unit``, ``refresh``, ``request_id``, besides Celery's own.
    """

    typing = False
    acks_late = True
    ignore_result = False

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """Run the body; what Celery sends on from its answer, it sends only once that is stored.

        Celery calls links and the chain's next task first and stores then. A worker that dies in between would have
        sent an answer that nobody else gets: the job would be computed anew.

        Raises:
            Ignore: If the run has lost its job.
        """
        answer = super().__call__(*args, **inputs)
        request = self.request
        if (request.callbacks or request.chain) and not request.called_directly:
            if not self.backend.store_answer(request.id, answer, request):
                raise Ignore
            request.is_answer_stored = True
        return answer

    def AsyncResult(self, task_id: str, **options: Any) -> PredictionResult:  # noqa: N802 - Celery's name
        """Return the handle of a prediction by its task id."""
        return PredictionResult(task_id, **options)

    def delay(self, *args: Any, **inputs: Any) -> PredictionResult:
        """Ask for a prediction by its input fields.

        Args:
            *args: None: inputs are passed by name.
            **inputs: The program's input fields.

        Raises:
            InvalidRequest: If it can never be served; nothing is sent.
            RedisUnavailable: If Redis does not answer.
        """
        if args:
            raise InvalidInputs("inputs are passed by name")
        return self._ask(build_request(inputs), {})

    def apply_async(
        self, args: Any = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> PredictionResult:
        """Ask for a prediction, and say how.

        Args:
            args: In a chain, what the task before returned: a dict of inputs, or a prediction whose outputs are inputs
                here. Otherwise none.
            kwargs: The program's input fields.
            **options: ``program``, which may be left out where there is one; ``variant`` forces one; ``unit`` is whom
                the experiment sticks to; ``refresh=True`` computes a new answer; ``request_id`` is your own id of the
                call. Further, Celery's own options but for ``queue``, which the variant decides.

        Raises:
            InvalidRequest: If it can never be served; nothing is sent.
            RedisUnavailable: If Redis does not answer.
        """
        asked = {name: options.pop(name) for name in _PREDICTION_OPTIONS & options.keys()}
        options = {name: value for name, value in options.items() if value is not None}
        self._check_options(options)
        inputs = _merge(args, kwargs, asked.get("program"))
        request = build_request(inputs, **asked)
        if _OWN_ID_OPTIONS.isdisjoint(options):
            return self._ask(request, options)
        with redis_errors("send the prediction"):
            return self.publish(request, options, options.pop("task_id", None) or uuid(), is_claimed=False)

    def many(  # noqa: PLR0913 - the options of a prediction, all by name
        self,
        rows: Iterable[Mapping[str, Any]],
        *,
        program: str | None = None,
        variant: str | None = None,
        unit: object = None,
        refresh: bool = False,
        priority: int = MOST_URGENT,
    ) -> list[PredictionResult]:
        """Ask for many predictions at once, looked up and published in bulk.

        Args:
            rows: The inputs of each prediction.
            program: As of ``apply_async``.
            variant: As of ``apply_async``.
            unit: As of ``apply_async``, for all rows; left out, each row's inputs are its unit.
            refresh: As of ``apply_async``.
            priority: The turn of all rows, 0 (most urgent) to 9.

        Returns:
            The handles, in the order of the rows.

        Raises:
            InvalidRequest: If a row can never be served, with its number; then nothing is sent.
            RedisUnavailable: If Redis does not answer; the rows before may have been sent.
        """
        self._check_options({"priority": priority})
        requests = []
        for number, row in enumerate(rows, start=1):
            try:
                requests.append(build_request(row, program=program, variant=variant, unit=unit, refresh=refresh))
            except InvalidInputs as error:
                raise type(error)(f"row {number}: {error}") from None
        handles: list[PredictionResult] = []
        for start in range(0, len(requests), CHUNK_ROWS):
            handles += self._ask_many(requests[start : start + CHUNK_ROWS], priority)
        return handles

    def _ask(self, request: Request, options: dict[str, Any]) -> PredictionResult:
        """Look a plain call up, join its question's run, or begin one."""
        asked_at = time.monotonic()
        if (hit := self._look_in_memory(request, asked_at)) is not None:
            return hit
        task_id = uuid()
        with redis_errors("ask for the prediction"):
            claim = process_claims().claim(request, task_id, priority=options.get("priority", MOST_URGENT))
            if claim.verdict == "claim":
                self._publish_claimed(request, options, claim.task_id)
            elif claim.verdict == "urge":
                self.publish(request, options, claim.task_id, is_claimed=True, batch=claim.batch)
        return self._handle(request, claim, asked_at)

    def _ask_many(self, requests: list[Request], priority: int) -> list[PredictionResult]:
        asked_at = time.monotonic()
        handles = [self._look_in_memory(request, asked_at) for request in requests]
        missed = [index for index, handle in enumerate(handles) if handle is None]
        if missed:
            wanted = [requests[index] for index in missed]
            with redis_errors("ask for the predictions"):
                claims = process_bulk().ask(wanted, [uuid() for _ in wanted], priority=priority)
            for index, claim in zip(missed, claims, strict=True):
                handles[index] = self._handle(requests[index], claim, asked_at)
        return [handle for handle in handles if handle is not None]

    def _look_in_memory(self, request: Request, asked_at: float) -> PredictionResult | None:
        if request.refresh:
            return None
        entry = process_cache().get(request.input_hash, request.queue)
        if entry is None:
            return None
        _tell_of_hit(request, entry.task_id, "memory", asked_at)
        return PredictionResult.of_request(
            request, entry.task_id, asked_at=asked_at, cache_level="memory", payload=entry.payload
        )

    def _handle(self, request: Request, claim: Claim, asked_at: float) -> PredictionResult:
        process_calls().count_claim(claim.verdict, request.variant.model.name)
        if claim.verdict == "hit":
            _tell_of_hit(request, claim.task_id, "redis", asked_at)
            return PredictionResult.of_request(
                request,
                claim.task_id,
                asked_at=asked_at,
                cache_level="redis",
                payload=claim.result,
                milliseconds_left=claim.milliseconds_left,
            )
        level: CacheLevel | None = None if claim.verdict == "claim" else "joined"
        if level is not None:
            note_shared(level, claim.task_id)
        return PredictionResult.of_request(request, claim.task_id, asked_at=asked_at, cache_level=level)

    def _publish_claimed(self, request: Request, options: dict[str, Any], task_id: str) -> None:
        try:
            self.publish(request, options, task_id, is_claimed=True)
        except (OperationalError, RedisError, OSError):
            # It may have been sent all the same; then the claim stays. Redis may be gone: then the claim lapses by
            # itself, after delivery.claim_timeout_seconds.
            with suppress(RedisError):
                process_claims().release(request, Run(task_id))
            raise

    def publish(  # noqa: PLR0913 - what is sent, and in whose name
        self,
        request: Request,
        options: dict[str, Any],
        task_id: str,
        *,
        is_claimed: bool,
        batch: str = "",
        is_one_of_many: bool = False,
    ) -> PredictionResult:
        """Send a request's message, as Celery sends any task's.

        Args:
            request: The request.
            options: Celery's own options of the call.
            task_id: Its task.
            is_claimed: Whether that task has claimed the question.
            batch: The batch that did so; empty for none.
            is_one_of_many: Whether it is sent with others, whose span is its own.
        """
        options = dict(options)
        for name in {"link", "link_error"} & options.keys():
            options[name] = [_with_id(signature) for signature in maybe_list(options[name])]
        header = request.header(is_claimed=is_claimed, batch=batch)._asdict()
        span = publishing(request.queue, request_id=request.request_id, task_id=task_id)
        with nullcontext() if is_one_of_many else span:
            headers = {**(options.get("headers") or {}), **trace_headers(), HEADER: header}
            result: PredictionResult = super().apply_async(
                (),
                request.inputs,
                task_id=task_id,
                queue=request.queue,
                declare=(),  # a worker declares what it takes from; nothing needs declaring to be sent
                **{**options, "headers": headers},
            )
        result.request = request
        process_calls().count_published(request.queue)
        return result

    def _check_options(self, options: Mapping[str, Any]) -> None:
        if options.get("ignore_result"):
            raise InvalidOption("a prediction is its result: call predict without ignore_result")
        if "queue" in options or "routing_key" in options or "exchange" in options:
            raise InvalidOption("a prediction's queue is its variant's: choose it with variant=, not with queue=")
        priority = options.get("priority", MOST_URGENT)
        if not isinstance(priority, int) or not MOST_URGENT <= priority <= LEAST_URGENT:
            raise InvalidOption(f"priority is a whole number from {MOST_URGENT} (most urgent) to {LEAST_URGENT}")
        known = _CELERY_OPTIONS | _PREDICTION_OPTIONS | set(options.get("stamped_headers", ()))
        for name in options.keys() - known:
            import difflib  # noqa: PLC0415 - only a mistake needs it

            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "; inputs go into kwargs={…}"
            raise InvalidOption(f"apply_async has no option {name!r}{hint}")


def _tell_of_hit(request: Request, task_id: str, level: CacheLevel, asked_at: float) -> None:
    """Nothing is sent, so that no worker tells of it."""
    note_shared(level, task_id)
    log_hit(request, task_id, level, asked_at)


def _with_id(signature: Any) -> Any:
    """Give a link its task id now: a prediction that is delivered twice then links once.

    An error link that takes more than one argument Celery calls as a function, within the run that failed: no id keeps
    it from being called again.
    """
    named = maybe_signature(signature, app=app).clone()
    named.freeze()
    return named


def _merge(args: Any, kwargs: Mapping[str, Any] | None, program: str | None) -> Mapping[str, Any]:
    """Put what a chain passes on below the inputs given by name."""
    if not args:
        return kwargs or {}
    if len(args) > 1 or not isinstance(args[0], Mapping):
        raise InvalidInputs(
            "inputs are passed by name; in a chain, the task before must return a dict of inputs or a prediction, "
            "or use predict.si(…)"
        )
    (previous,) = args
    if is_prediction(previous):
        fields = {field.name for field in find_program(program).signature.inputs}
        previous = {name: value for name, value in previous["outputs"].items() if name in fields}
    return {**previous, **(kwargs or {})}


def _run(task: Predict, *args: Any, **inputs: Any) -> dict[str, Any]:
    del args  # an apply_async of ours sends none
    if _body is None:
        raise InvalidRequest("predictions run in workers: start one with 'celery -A dspyq worker'")
    return _body(task, inputs)


def install_body(body: Body) -> None:
    """Give the task what it does; a worker does so when it starts, a producer never does."""
    global _body  # noqa: PLW0603 - one task, one body, for the life of the process
    _body = body


_body: Body | None = None
#: Bound to the application, and so to the configuration, when it is first used.
predict: Predict = app.task(_run, base=Predict, bind=True, name=TASK_NAME)
