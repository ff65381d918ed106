"""Publishing of predictions: from a template where their messages differ only in a few fields, else by Celery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from celery import signals
from celery.canvas import maybe_signature
from celery.utils.functional import maybe_list

from dspyq.celery_app.application import process_app
from dspyq.client.call_counters import process_calls
from dspyq.client.message_template import MessageTemplate, Outgoing
from dspyq.client.result import PredictionResult
from dspyq.config.privacy import hides_content
from dspyq.core.names import HEADER, TASK_NAME
from dspyq.core.runtime import per_runtime
from dspyq.delivery.kept_jobs import jobs_kept
from dspyq.delivery.leases import process_leases
from dspyq.delivery.records import BATCH_SIZE, QueuedJob
from dspyq.experiments.fence import ANY_STATE, sent_under
from dspyq.prediction.request import Request
from dspyq.store.spines import by_spine, on_spine
from dspyq.tracing.propagation import publishing, trace_headers
from dspyq.tracing.tracing import process_tracing

#: The version of Celery's messages that a template supports.
_PROTOCOL = 2
#: Raised of another serializer or encoding, compression, half a surrogate pair.
_NO_TEMPLATE = (ValueError, TypeError, LookupError)
#: Messages of one kind have one template: the queue, the scope, whether text is streamed, and if it is a tenant's.
_MessageKind = tuple[str, str, bool, bool]
#: Most bytes of messages in one round trip.
_MOST_BYTES = 8 * 2**20


def publish(
    outgoing: Outgoing, options: Mapping[str, Any], *, is_one_of_many: bool = False, is_sample: bool = False
) -> PredictionResult:
    """Send a prediction's message, as Celery sends any task's.

    One that has claimed its question was checked against its experiment's state; any other is checked as it is put.

    Args:
        outgoing: The prediction.
        options: Celery's own options of the call.
        is_one_of_many: Whether it is sent with others, whose span is its own.
        is_sample: Whether it is made for a template, and kept.

    Raises:
        StateChanged: If its experiment has another state than the one that gave it its variant; nothing was sent.
    """
    request, task_id, batch, is_claimed = outgoing
    sent: dict[str, Any] = {
        "result_cls": PredictionResult,
        "ignore_result": False,
        "declare": (),  # workers declare their queues; sending needs no declaration
        **options,
    }
    for name in {"link", "link_error"} & sent.keys():
        sent[name] = [_with_id(signature) for signature in maybe_list(sent[name])]
    header = request.header(is_claimed=is_claimed, batch=batch).stated()
    span = publishing(request.queue, request_id=request.request_id, task_id=task_id)
    with nullcontext() if is_one_of_many else span, sent_under(ANY_STATE if is_claimed else request.seen):
        sent["headers"] = {**(sent.get("headers") or {}), **trace_headers(), HEADER: header}
        result: PredictionResult = process_app().send_task(
            TASK_NAME, (), request.inputs, task_id=task_id, queue=request.queue, **sent
        )
    result.request = request
    if not is_sample:
        process_calls().count_published(request.queue)
    return result


def publish_many(outgoing: Sequence[Outgoing], *, priority: int) -> None:
    """Send predictions, in their order.

    Raises:
        redis.RedisError: If Redis does not answer or refuses; some may have been sent.
        kombu.exceptions.OperationalError: The same, from Celery's own way.
    """
    if not outgoing:
        return
    with publishing(outgoing[0].request.program.name, count=len(outgoing)):
        jobs = _make_jobs(outgoing, priority)
        if jobs is None:
            _publish_by_celery(outgoing, priority)
            return
        for some in _in_parts(jobs):
            for _, own in by_spine(some, [job.input_hash or job.id for job in some]):
                process_leases().records.put_many(own)
        for queue, number in Counter(each.request.queue for each in outgoing).items():
            process_calls().count_published(queue, number)


@dataclass
class _KeptTemplates:
    """Templates for single predictions, as long as Celery's settings stay as they are.

    Attributes:
        changes: Celery's settings that this process has set.
        are_messages_alike: Whether those settings allow templates.
        templates: The templates, by kind of message and priority.
    """

    changes: dict[str, Any]
    are_messages_alike: bool
    templates: dict[tuple[_MessageKind, int], MessageTemplate] = field(default_factory=dict)


@per_runtime
def _kept() -> list[_KeptTemplates]:
    return []


def make_job(request: Request, task_id: str, priority: int) -> QueuedJob | None:
    """Return the job of one prediction that claims its question; None if Celery must make its message.

    Raises:
        InputsTooLarge: If the message is larger than it may be.
    """
    outgoing = Outgoing(request, task_id)
    template = find_template(outgoing, priority)
    if template is None:
        return None
    try:
        job = template.make(outgoing)
    except _NO_TEMPLATE:
        return None
    with on_spine(request.input_hash):
        process_leases().records.check_size(job.message)
    return job


def find_template(outgoing: Outgoing, priority: int) -> MessageTemplate | None:
    """Return the template of predictions that claim their questions; None if Celery must make their messages.

    So it is where calls are traced: the span of a message begins before it is made, and not every call sends one.

    Args:
        outgoing: The first of them.
        priority: Their turn.
    """
    if process_tracing() is not None or not _are_messages_alike_now():
        return None
    kept, changes = _kept(), process_app().conf.changes
    if not kept or kept[0].changes != changes:
        kept[:] = [_KeptTemplates(dict(changes), _do_settings_allow_templates())]
    if not kept[0].are_messages_alike:
        return None
    templates, kind = kept[0].templates, (_kind_of(outgoing.request), priority)
    template = templates.get(kind)
    if template is None:
        try:
            template = templates[kind] = _make_template(outgoing, priority)
        except _NO_TEMPLATE:
            return None
    return template


def _kind_of(request: Request) -> _MessageKind:
    """Return the kind of a message, of which all have the same fixed parts."""
    return request.queue, request.scope, request.is_streamed, bool(request.tenant)


def _make_jobs(outgoing: Sequence[Outgoing], priority: int) -> list[QueuedJob] | None:
    """Return the jobs; None if Celery must make each message itself."""
    if not (_are_messages_alike_now() and _do_settings_allow_templates()):
        return None
    templates: dict[_MessageKind, MessageTemplate] = {}
    jobs = []
    try:
        for each in outgoing:
            kind = _kind_of(each.request)
            template = templates.get(kind)
            if template is None:
                template = templates[kind] = _make_template(each, priority)
            jobs.append(template.make(each))
    except _NO_TEMPLATE:
        return None
    return jobs


def _are_messages_alike_now() -> bool:
    """Return True if no signal and no running task makes messages differ."""
    watchers = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)
    return not any(signal.receivers for signal in watchers) and process_app().current_worker_task is None


def _do_settings_allow_templates() -> bool:
    """Return True if no route or setting makes messages differ, or shows their inputs."""
    conf = process_app().conf
    return (
        hides_content()
        and conf.task_protocol == _PROTOCOL
        and not (conf.task_send_sent_event or conf.task_always_eager or conf.task_routes)
    )


def _make_template(outgoing: Outgoing, priority: int) -> MessageTemplate:
    """Return a template from one message made by Celery.

    Raises:
        ValueError: If the template does not reproduce it, or cannot read it; or one of the other errors.
    """
    with jobs_kept() as jobs:
        publish(outgoing, {"priority": priority}, is_one_of_many=True, is_sample=True)
    template = MessageTemplate(jobs[0])
    if not template.makes(outgoing):
        raise ValueError("a template makes another message")
    return template


def _publish_by_celery(outgoing: Sequence[Outgoing], priority: int) -> None:
    with process_app().producer_or_acquire() as producer, producer.batch(BATCH_SIZE):
        options = {"producer": producer, "priority": priority}
        for each in outgoing:
            publish(each, options, is_one_of_many=True)


def _with_id(signature: Any) -> Any:
    """Give a link its task id now, so that a prediction delivered twice links once.

    An error link that takes more than one argument Celery calls as a function, within the run that failed: no id keeps
    it from being called again.
    """
    named = maybe_signature(signature, app=process_app()).clone()
    named.freeze()
    return named


def _in_parts(jobs: Sequence[QueuedJob]) -> Iterator[list[QueuedJob]]:
    """Split jobs into parts that fit one round trip."""
    part: list[QueuedJob] = []
    part_bytes = 0
    for job in jobs:
        if part and (len(part) == BATCH_SIZE or part_bytes + len(job.message) > _MOST_BYTES):
            yield part
            part, part_bytes = [], 0
        part.append(job)
        part_bytes += len(job.message)
    if part:
        yield part
