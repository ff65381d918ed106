"""``predict``: the one Celery task, and every way to call it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Unpack

from celery import Task
from celery.exceptions import Ignore
from celery.local import Proxy, maybe_evaluate

from dspyq.celery_app.application import App, app, process_app
from dspyq.client.asking import LEAST_URGENT, MOST_URGENT, OWN_ID_OPTIONS, process_asker
from dspyq.client.awaiting import Awaitable
from dspyq.client.off_loop import off_loop
from dspyq.client.option_values import check_values
from dspyq.client.result import PredictionResult
from dspyq.core.names import TASK_NAME
from dspyq.core.runtime import DEFAULT, Runtime, current, in_own_runtime, per_runtime
from dspyq.delivery.task import DeliveredTask, carried
from dspyq.delivery.task_run import task_run
from dspyq.errors import InvalidInputs, InvalidOption, InvalidRequest, UnknownProgram
from dspyq.experiments.feedback import FeedbackOutcome, give_feedback
from dspyq.prediction.options import MANY_OPTIONS, PREDICT_OPTIONS, ManyOptions, RowOptions
from dspyq.prediction.prediction import is_prediction
from dspyq.prediction.request import Request, build_request, build_requests, find_program

#: Further options that Celery's users and its canvas pass.
_CELERY_OPTIONS = OWN_ID_OPTIONS | {
    "add_to_parent", "argsrepr", "compression", "connection", "group_index", "headers", "ignore_result", "kwargsrepr",
    "origin", "parent_id", "priority", "producer", "publisher", "replaced_task_nesting", "reply_to", "result_cls",
    "retry", "retry_policy", "root_id", "serializer", "shadow", "soft_time_limit", "stamped_headers", "time_limit",
}  # fmt: skip
#: Further options of Celery's own ``apply``.
_APPLY_OPTIONS = frozenset({"throw", "logfile", "loglevel"})

PredictBody = Callable[[Task, Mapping[str, Any]], dict[str, Any]]


class Predict(Awaitable, DeliveredTask):
    """Request a prediction from a program.

    ``predict.delay(question="…")`` takes the program's input fields and nothing else. How it is answered are options of
    ``apply_async``: ``program``, ``variant``, ``unit``, ``refresh``, ``tenant``, ``request_id``, besides Celery's own.
    """

    typing = False
    acks_late = True
    ignore_result = False

    @functools.cached_property
    def runtime(self) -> Runtime:
        """The runtime of its application; the default where that is a user's own, for Celery gives tasks to all."""
        return getattr(self.app, "runtime", DEFAULT)

    def __call__(self, /, *args: Any, **inputs: Any) -> Any:
        """Run the body, and store its answer before Celery sends it on.

        Celery calls links and the chain's next task first and stores then. A worker that dies in between would have
        sent an answer that is not stored: the job would be computed again.

        Raises:
            Ignore: If the run has lost its job.
        """
        answer = super().__call__(*args, **inputs)
        request = self.request
        if (request.callbacks or request.chain) and not (request.called_directly or request.is_eager):
            if not self.backend.store_answer(request.id, answer, request):
                raise Ignore
            task_run(request).is_answer_stored = True
        return answer

    @in_own_runtime
    def AsyncResult(self, task_id: str, **options: Any) -> PredictionResult:  # noqa: N802 - Celery's name
        """Return the handle of a prediction by its task id."""
        return process_asker().result(task_id, **options)

    def delay(self, /, *args: Any, **inputs: Any) -> PredictionResult:
        """Request a prediction by its input fields.

        Args:
            *args: Refused: inputs are passed by name.
            **inputs: The program's input fields.

        Raises:
            InvalidRequest: If it can never be served; nothing is sent.
            RedisUnavailable: If Redis does not answer.
        """
        if self.runtime is not current():  # as in_own_runtime has it, without a call of its own
            with self.runtime.active():
                return self.delay(*args, **inputs)
        if args:
            raise InvalidInputs("inputs are passed by name: predict.delay(question=…)")
        try:
            request = build_request(inputs)
        except (InvalidInputs, UnknownProgram) as error:
            raise _with_place_of_options(error, inputs) from None
        return process_asker().ask(request, {})

    def s(self, /, *args: Any, **inputs: Any) -> Any:
        """Return the signature of a call, as Celery does, whatever the names of the inputs."""
        return self.signature(args, inputs)

    def si(self, /, *args: Any, **inputs: Any) -> Any:
        """Return the signature of a call that takes nothing from the task before it."""
        return self.signature(args, inputs, immutable=True)

    @in_own_runtime
    def apply_async(
        self, args: Any = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> PredictionResult:
        """Request a prediction, with options.

        Args:
            args: In a chain, what the task before returned: a dict of inputs, or a prediction whose outputs are inputs
                here. Otherwise none.
            kwargs: The program's input fields.
            **options: ``program``, which may be left out if there is one; ``variant`` forces one; ``unit`` is the user
                or session that keeps its variant; ``refresh=True`` computes a new answer; ``tenant`` is the customer
                whose limits, books and cached answers these are; ``request_id`` is your own id of the call. Also
                Celery's own options except ``queue``, which the variant decides.

        Raises:
            InvalidRequest: If it can never be served; nothing is sent.
            RedisUnavailable: If Redis does not answer.
        """
        asked = {name: options.pop(name) for name in PREDICT_OPTIONS & options.keys()}
        options = {name: value for name, value in options.items() if value is not None}
        self._check_options(options)
        inputs = _merge(args, kwargs, asked.get("program"))
        return process_asker().ask(build_request(inputs, **asked), options)

    @in_own_runtime
    def apply(self, args: Any = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Answer in this process while ``dspyq.testing`` answers predictions; a producer cannot.

        Celery's canvas calls this under ``task_always_eager``.
        """
        if not process_asker().is_local:
            return super().apply(args, kwargs, **options)
        for name in _APPLY_OPTIONS & options.keys():
            del options[name]
        return self.apply_async(carried(args), kwargs, **options)

    @in_own_runtime
    def run_here(self, request: Request, **options: Any) -> Any:
        """Run the task's body in this process, with links and signals, as Celery's own ``apply`` does."""
        return super().apply((), request.inputs, **options)

    @in_own_runtime
    def feedback(self, given_for: PredictionResult | str, *, name: str, value: float) -> FeedbackOutcome:
        """Count a judgement of an answer for the experiment that the call is part of.

        Args:
            given_for: The handle of the call, or ``metadata.exposure`` of its answer.
            name: One of the experiment's ``feedback`` tables.
            value: The judgement, within its range.

        Returns:
            ``new``; ``same`` if it was given before; ``replaced`` or ``kept`` if another was, as the table states.

        Raises:
            FeedbackRefused: If it is not counted; the text states the reason.
            RedisUnavailable: If Redis does not answer.
        """
        token = given_for if isinstance(given_for, str) else given_for.exposure
        return give_feedback(token or "", name, value)

    async def feedback_async(self, given_for: PredictionResult | str, *, name: str, value: float) -> FeedbackOutcome:
        """As ``feedback``, without blocking the event loop."""
        return await off_loop(functools.partial(self.feedback, given_for, name=name, value=value))

    @in_own_runtime
    def many(self, rows: Iterable[Mapping[str, Any]], **options: Unpack[ManyOptions]) -> list[PredictionResult]:
        """Request many predictions at once, looked up and published in bulk.

        Args:
            rows: The inputs of each prediction.
            **options: For all rows: ``program``, ``variant``, ``unit``, ``refresh`` and ``tenant``, as of
                ``apply_async``, and ``priority``, their turn, 0 (most urgent) to 9. Without ``unit``, each row's inputs
                are its unit.

        Returns:
            The handles, in the order of the rows.

        Raises:
            InvalidRequest: If a row can never be served, with its number; then nothing is sent.
            RedisUnavailable: If Redis does not answer; the rows before may have been sent.
        """
        for name in options.keys() - MANY_OPTIONS:
            raise InvalidOption(f"many has no option {name!r}: it takes {', '.join(sorted(MANY_OPTIONS))}")
        self._check_options(options)
        asked = RowOptions(
            program=options.get("program"),
            variant=options.get("variant"),
            unit=options.get("unit"),
            refresh=options.get("refresh", False),
            tenant=options.get("tenant"),
        )
        if isinstance(rows, Mapping | str | bytes):
            raise InvalidInputs("many takes a list of rows: many([{…}, {…}]); one question is predict.delay(…)")
        requests = list(build_requests(rows, **asked))
        return process_asker().ask_many(requests, options.get("priority", MOST_URGENT))

    def _check_options(self, options: Mapping[str, Any]) -> None:
        if options.get("ignore_result"):
            raise InvalidOption("a prediction is its result: call predict without ignore_result")
        if "queue" in options or "routing_key" in options or "exchange" in options:
            raise InvalidOption("a prediction's queue is its variant's: choose it with variant=, not with queue=")
        priority = options.get("priority", MOST_URGENT)
        if not isinstance(priority, int) or not MOST_URGENT <= priority <= LEAST_URGENT:
            raise InvalidOption(f"priority is a whole number from {MOST_URGENT} (most urgent) to {LEAST_URGENT}")
        known = _CELERY_OPTIONS | PREDICT_OPTIONS | set(options.get("stamped_headers", ()))
        for name in options.keys() - known:
            import difflib  # noqa: PLC0415 - only a mistake needs it

            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "; inputs go into kwargs={…}"
            raise InvalidOption(f"apply_async has no option {name!r}{hint}")
        check_values(options)


def _merge(args: Any, kwargs: Mapping[str, Any] | None, program: str | None) -> Mapping[str, Any]:
    """Merge a chain's result with the inputs given by name, which take precedence."""
    if isinstance(args, Mapping):
        raise InvalidInputs("inputs are passed as kwargs: predict.apply_async(kwargs={…})")
    if not args:
        return kwargs or {}
    if not isinstance(args, (list, tuple)) or len(args) > 1 or not isinstance(args[0], Mapping):
        raise InvalidInputs(
            "inputs are passed by name; in a chain, the task before must return a dict of inputs or a prediction, "
            "or use predict.si(…)"
        )
    (previous,) = args
    if is_prediction(previous):
        fields = {field.name for field in find_program(program).signature.inputs}
        previous = {name: value for name, value in previous["outputs"].items() if name in fields}
    return {**previous, **(kwargs or {})}


def _with_place_of_options(error: InvalidRequest, inputs: Mapping[str, Any]) -> InvalidRequest:
    """Return the error of a ``delay``; with a hint if there are options among the inputs."""
    options = sorted((PREDICT_OPTIONS | _CELERY_OPTIONS) & inputs.keys())
    if not options:
        return error
    example = ", ".join(f"{name}=…" for name in options)
    return type(error)(
        f"{error}; delay takes input fields alone: options go to predict.apply_async(kwargs={{…}}, {example})"
    )


def _run(task: Predict, /, *args: Any, **inputs: Any) -> dict[str, Any]:
    del args  # an apply_async of ours sends none
    if _body is None:
        raise InvalidRequest(
            "predictions run in workers: start one with 'celery -A dspyq worker'; "
            "in a test, use dspyq.testing.answers(…)"
        )
    return _body(task, inputs)


def install_body(body: PredictBody | None) -> PredictBody | None:
    """Set the task's body, and return the previous one.

    A worker does so when it starts, ``dspyq.testing`` for a test, a producer never.
    """
    global _body
    before, _body = _body, body
    return before


_body: PredictBody | None = None


def _declare(own: App, *, is_shared: bool) -> Predict:
    """Declare the task to an application; it is bound to that, and so to its configuration, when it is first used."""
    task: Predict = own.task(_run, base=Predict, bind=True, name=TASK_NAME, shared=is_shared)
    return task


@per_runtime(is_kept=True)
def process_predict() -> Predict:
    """Return the task of the runtime."""
    own = process_app()
    task: Predict = maybe_evaluate(_default_predict if own is app else _declare(own, is_shared=False))
    return task


class _CurrentPredict(Proxy):  # type: ignore[misc]  # celery ships no types
    """Stands for the task of whatever runtime is active."""

    __slots__ = ()

    def _get_current_object(self) -> Predict:
        return process_predict()

    def __getattr__(self, name: str) -> Any:  # Celery's own takes longer, at each call
        return getattr(process_predict(), name)


#: Shared, as Celery calls it: the user's own applications have it too, so that their workers can send it on.
_default_predict = _declare(app, is_shared=True)
predict: Predict = _CurrentPredict(process_predict)
