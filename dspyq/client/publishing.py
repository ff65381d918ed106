"""Sends many predictions at once: Celery makes one message for each queue, and the others are made after it.

Celery and kombu take ten times as long to make a message as Redis to store it, and of a batch's messages all but a few
fields are the same. Whatever could make them differ in more is left to Celery.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson
from celery import signals

from dspyq.celery_app.application import HEADER, TASK_NAME, app
from dspyq.config.privacy import hides_content
from dspyq.delivery.leases import process_leases
from dspyq.delivery.records import BATCH_SIZE, Job
from dspyq.delivery.transport import jobs_kept
from dspyq.prediction.request import Request
from dspyq.tracing.propagation import publishing

#: The version of Celery's messages that a template reads.
_PROTOCOL = 2
#: Messages are stored in one round trip up to so many bytes of them.
_MOST_BYTES = 8 * 2**20


class Claimed(NamedTuple):
    """A prediction to send.

    Attributes:
        request: What is asked.
        task_id: The task that has claimed it.
        batch: The batch that pays; empty for none.
    """

    request: Request
    task_id: str
    batch: str


def publish_many(claimed: Sequence[Claimed], *, priority: int) -> None:
    """Send predictions, in their order.

    Raises:
        redis.RedisError: If Redis does not answer or refuses; some may have been sent.
        kombu.exceptions.OperationalError: The same, from Celery's own way.
    """
    if not claimed:
        return
    with publishing(claimed[0].request.program.name, count=len(claimed)):
        jobs = _make_jobs(claimed, priority)
        if jobs is None:
            _publish_by_celery(claimed, priority)
            return
        for some in _in_parts(jobs):
            process_leases().records.put_many(some)


class MessageTemplate:
    """Makes messages that differ from Celery's own in nothing but what is a prediction's own.

    Args:
        sample: A job that Celery made.

    Raises:
        ValueError: If its message cannot be read.
        LookupError: If it is in another form.
    """

    def __init__(self, sample: Job) -> None:
        self._sample = sample
        self._message: dict[str, Any] = orjson.loads(sample.message)
        args, _, embed = _read_body(self._message)
        self._body_start = b"[" + orjson.dumps(args) + b","
        self._body_end = b"," + orjson.dumps(embed) + b"]"

    def make(self, claimed: Claimed) -> Job:
        """Return the job of a prediction."""
        request, task_id, batch = claimed
        message = self._message
        body = self._body_start + request.canonical_inputs + self._body_end
        header = request.header(is_claimed=True, batch=batch)._asdict()
        text = orjson.dumps(
            {
                **message,
                "body": binascii.b2a_base64(body, newline=False).decode(),
                "headers": {**message["headers"], "id": task_id, "root_id": task_id, HEADER: header},
                "properties": {**message["properties"], "correlation_id": task_id, "delivery_tag": task_id},
            }
        )
        return self._sample._replace(id=task_id, message=text)

    def makes(self, claimed: Claimed) -> bool:
        """Whether it makes of the sample's prediction what Celery made of it."""
        made: dict[str, Any] = orjson.loads(self.make(claimed).message)
        bodies = [_read_body(message) for message in (made, self._message)]
        theirs = {**self._message, "body": made["body"]}
        theirs["properties"] = {**theirs["properties"], "delivery_tag": claimed.task_id}  # random; a run has its own
        return bodies[0] == bodies[1] and made == theirs


def _make_jobs(claimed: Sequence[Claimed], priority: int) -> list[Job] | None:
    """Return the jobs; None where Celery has to make each message itself."""
    if not _are_messages_alike():
        return None
    templates: dict[str, MessageTemplate] = {}
    jobs = []
    try:
        for each in claimed:
            template = templates.get(each.request.queue)
            if template is None:
                template = templates[each.request.queue] = _make_template(each, priority)
            jobs.append(template.make(each))
    except (ValueError, TypeError, LookupError):  # another serializer or encoding, compression, half a surrogate pair
        return None
    return jobs


def _are_messages_alike() -> bool:
    """Whether nothing sees or changes each message on its way, and none shows its inputs or is another task's child."""
    conf = app.conf
    watchers = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)
    return (
        hides_content()
        and conf.task_protocol == _PROTOCOL
        and not (conf.task_send_sent_event or conf.task_always_eager or conf.task_routes)
        and not any(signal.receivers for signal in watchers)
        and app.current_worker_task is None
    )


def _make_template(claimed: Claimed, priority: int) -> MessageTemplate:
    """Have Celery make one message.

    Raises:
        ValueError: If a template makes another one of it, or cannot read it; or one of the other errors.
    """
    with jobs_kept() as jobs:
        _publish(claimed, {"priority": priority})
    template = MessageTemplate(jobs[0])
    if not template.makes(claimed):
        raise ValueError("a template makes another message")
    return template


def _publish_by_celery(claimed: Sequence[Claimed], priority: int) -> None:
    with app.producer_or_acquire() as producer, producer.batch(BATCH_SIZE):
        options = {"producer": producer, "priority": priority}
        for each in claimed:
            _publish(each, options)


def _publish(claimed: Claimed, options: dict[str, Any]) -> None:
    request, task_id, batch = claimed
    app.tasks[TASK_NAME].publish(request, options, task_id, is_claimed=True, batch=batch, is_one_of_many=True)


def _read_body(message: dict[str, Any]) -> list[Any]:
    if message["properties"]["body_encoding"] != "base64":
        raise ValueError("the body is in another encoding")
    body: list[Any] = orjson.loads(binascii.a2b_base64(message["body"]))
    return body


def _in_parts(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Cut jobs where they get too many or too large for one round trip."""
    part: list[Job] = []
    part_bytes = 0
    for job in jobs:
        if part and (len(part) == BATCH_SIZE or part_bytes + len(job.message) > _MOST_BYTES):
            yield part
            part, part_bytes = [], 0
        part.append(job)
        part_bytes += len(job.message)
    if part:
        yield part
