"""Redis dies, freezes, fills up, refuses writes, forgets answers, cuts connections; and lists hold strange items."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import kombu.transport.memory

from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import RECOVERY_SECONDS, Stage
from tests.support.redis_server import RedisServer

_WORKERS = 2
_CONCURRENCY = 4
_QUEUE = "qa.control"
_EVICTING_BYTES = 20_000_000
#: As by default: what Redis does is no worker's death, and must not end in a job's being set aside.
_SETTINGS = {"delivery": {"max_deliveries": 3, "claim_timeout_seconds": 5}}


def _run(
    scale: Scale,
    fault: str,
    apply: Callable[[Stage], None],
    *,
    is_append_only: bool = False,
    explained_model_calls: int = 0,
) -> Outcome:
    """Apply a fault under load; all callers must be answered, and all workers consume again."""
    with Stage(model_seconds=0.2, concurrency=_CONCURRENCY, is_append_only=is_append_only, settings=_SETTINGS) as stage:
        workers = [stage.worker(waits=False) for _ in range(_WORKERS)]
        for worker in workers:
            worker.ready()
        with stage.load(scale.pick(quick=10, full=20)):
            time.sleep(1)
            apply(stage)
            ended_at = time.time()
            time.sleep(1)
        stage.wait(scale.pick(quick=20, full=40))
        hit = [call for call in stage.calls if call.asked_at < ended_at < (call.answered_at or 0)]
        recovery = stage.recovery_from(ended_at, hit)
        remarks = stage.all_consume(_WORKERS, _CONCURRENCY)
        remarks += ["a worker ended" for worker in workers if not worker.is_running]
        stage.wait(20)
        return stage.outcome(fault, recovery, remarks=remarks, explained_model_calls=explained_model_calls)


def restarted(scale: Scale) -> Outcome:
    """SIGKILL an append-only Redis under load and start it again."""
    down_seconds = scale.pick(quick=1, full=5)

    def apply(stage: Stage) -> None:
        stage.redis.process.kill()
        time.sleep(down_seconds)
        stage.redis.process.start()
        stage.redis.process.ready()

    return _run(scale, f"Redis killed, {down_seconds} s away", apply, is_append_only=True)


def frozen(scale: Scale) -> Outcome:
    """Freeze Redis for longer than a lease."""
    seconds = scale.pick(quick=4, full=10)

    def apply(stage: Stage) -> None:
        stage.redis.process.stop()
        time.sleep(seconds)
        stage.redis.process.cont()

    return _run(scale, f"Redis frozen {seconds} s", apply)


def out_of_memory(scale: Scale) -> Outcome:
    """Let Redis be out of memory for longer than a lease."""
    seconds = scale.pick(quick=4, full=10)

    def apply(stage: Stage) -> None:
        stage.redis.fill()
        time.sleep(seconds)
        stage.redis.make_room()

    return _run(scale, f"Redis out of memory {seconds} s", apply)


def out_of_memory_at_times(scale: Scale) -> Outcome:
    """Let Redis be out of memory for moments, so that what was refused a moment ago is not any more."""
    times = scale.pick(quick=10, full=50)

    def apply(stage: Stage) -> None:
        for _ in range(times):
            stage.redis.fill()
            time.sleep(scale.random.uniform(0, 0.2))
            stage.redis.make_room()
            time.sleep(scale.random.uniform(0, 0.2))

    return _run(scale, f"Redis out of memory {times}× for moments", apply)


def frozen_under_long_jobs(scale: Scale) -> Outcome:
    """Freeze Redis for longer than a lease under jobs that outlast it: each runs once, for its worker lives."""
    seconds = scale.pick(quick=3, full=10)
    rounds = scale.pick(quick=1, full=4)
    model_seconds = seconds + 2
    settings = _SETTINGS | {"models": {"control": {"timeout_seconds": 3 * model_seconds}}}
    with Stage(model_seconds=model_seconds, concurrency=_CONCURRENCY, settings=settings) as stage:
        for _ in range(_WORKERS):
            stage.worker()
        idle = [stage.worker(waits=False) for _ in range(_WORKERS)]
        for worker in idle:
            worker.ready()
        recovery: list[float] = []
        for _ in range(rounds):
            calls = stage.ask(stage.questions(_WORKERS * _CONCURRENCY), callers=2)
            stage.wait_for_in_flight(_WORKERS * _CONCURRENCY)
            began_at = time.time()
            stage.redis.process.stop()
            time.sleep(seconds)
            stage.redis.process.cont()
            stage.wait(30, calls)
            recovery += stage.recovery_from(began_at, calls)
        return stage.outcome(f"Redis frozen {seconds} s under longer jobs", recovery)


def answers_refused(scale: Scale) -> Outcome:
    """Kill a Redis of answers of its own, which keeps nothing, and start it again."""
    seconds = scale.pick(quick=1, full=5)
    with Stage(model_seconds=0.2, concurrency=_CONCURRENCY, evicting_bytes=100_000_000, settings=_SETTINGS) as stage:
        workers = [stage.worker(waits=False) for _ in range(_WORKERS)]
        for worker in workers:
            worker.ready()
        with stage.load(scale.pick(quick=10, full=20)):
            time.sleep(1)
            stage.answers.process.kill()
            time.sleep(seconds)
            stage.answers.process.start()
            stage.answers.process.ready()
            ended_at = time.time()
            time.sleep(1)
        stage.wait(10)
        # What was answered and not heard is forgotten, as it may be. Who asks again is answered anew.
        forgotten = [call for call in stage.calls if call.answered_at is None]
        for call in forgotten:
            stage.calls.remove(call)
        again = [call for forgot in forgotten for call in stage.ask([forgot.question])]
        stage.wait(20)
        hit = [call for call in stage.calls if call.asked_at < ended_at < (call.answered_at or 0)]
        return stage.outcome(
            f"Redis of answers emptied, {seconds} s away, {len(again)} forgotten",
            stage.recovery_from(ended_at, [call for call in hit if call not in again]),
            explained_model_calls=len(again),
        )


def read_only(scale: Scale) -> Outcome:
    """Let Redis be a replica that refuses writes, as after a failover that clients have not noticed."""
    seconds = scale.pick(quick=3, full=10)

    def apply(stage: Stage) -> None:
        stage.redis.cli("REPLICAOF", "127.0.0.1", "1")
        time.sleep(seconds)
        stage.redis.cli("REPLICAOF", "NO", "ONE")

    return _run(scale, f"Redis read-only {seconds} s", apply)


def reset_in_mid_command(scale: Scale) -> Outcome:
    """Cut every connection again and again, whatever it is doing."""
    times = scale.pick(quick=20, full=100)

    def apply(stage: Stage) -> None:
        for _ in range(times):
            time.sleep(scale.random.uniform(0, 0.2))
            stage.redis.cut_connections()

    return _run(scale, f"connections reset {times}×", apply)


def answers_evicted(scale: Scale) -> Outcome:
    """Keep answers on an evicting Redis that a neighbour fills all the while; every question is asked three times."""
    settings = {"cache": {"memory_entries": 0}, "delivery": {"claim_timeout_seconds": 2} | _SETTINGS["delivery"]}
    count = scale.pick(quick=100, full=500)
    with Stage(concurrency=_CONCURRENCY, evicting_bytes=_EVICTING_BYTES, settings=settings) as stage:
        for _ in range(_WORKERS):
            stage.worker()
        questions = stage.questions(count)
        with _filled(stage.answers):
            for _ in range(3):
                for start in range(0, count, 20):
                    batch = stage.ask_and_get(questions[start : start + 20], 30)
                    stage.wait(30, batch)
        computed_anew = stage.endpoint.calls() - count
        told = len(stage.asked_again)
        return stage.outcome(
            f"answers evicted, {computed_anew} of them wanted again, {told} before they were read",
            explained_model_calls=2 * count,
            remarks=[] if computed_anew else ["no answer was evicted"],
        )


@contextmanager
def _filled(server: RedisServer) -> Iterator[None]:
    """Write to a server all the while, about its memory's size each half second."""
    is_ending = threading.Event()

    def fill() -> None:
        with server.client() as client:
            number = 0
            while not is_ending.wait(0.01):
                number += 1
                client.set(f"neighbour:{number}", "x" * (_EVICTING_BYTES // 50))

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        is_ending.set()
        thread.join()


def garbage_in_lists(scale: Scale) -> Outcome:
    """Put into a queue's list, and into job records, what nobody can read."""
    strange = [b"", b"\xff\xfe", b"not json", b"null", b"[]", b"{}", b"2", b'"1"', b"true", b"1e999", b'{"body": 1}',
               b'{"body": "", "properties": {}, "headers": {}}', b"[" * 5_000]  # fmt: skip
    with Stage(concurrency=_CONCURRENCY, settings=_SETTINGS) as stage:
        workers = [stage.worker(waits=False) for _ in range(_WORKERS)]
        for worker in workers:
            worker.ready()
        client = stage.jobs.client(decode_responses=False)
        strange += list(_mutations(_message(stage), scale, scale.pick(quick=40, full=400)))
        started_at = time.time()
        for number in range(scale.pick(quick=1, full=4)):
            for index, item in enumerate(strange):
                client.lpush(_QUEUE, item)
                record = f"strange-{number}-{index}"
                client.hset(f"dspy:v1:job:{record}", mapping={"message": item, "queue": _QUEUE, "score": 1})
                client.zadd(f"dspy:v1:queue:{_QUEUE}", {record: 1})
                client.lpush(_QUEUE, b"1")
            stage.ask(stage.questions(10))
            time.sleep(0.2)
        stage.wait(RECOVERY_SECONDS + 10)
        recovery = stage.recovery_from(started_at, stage.calls)
        remarks = [f"a worker ended: {worker.logs()[-300:]}" for worker in workers if not worker.is_running]
        remarks += stage.all_consume(_WORKERS, _CONCURRENCY)
        stage.wait(10)
        client.close()
        return stage.outcome("garbage in lists and records", recovery, remarks=remarks, bound_seconds=15)


def _message(stage: Stage) -> dict[str, Any]:
    """Return a message as a producer writes it."""
    from celery import Celery

    sent: list[dict[str, Any]] = []

    class Connection(kombu.transport.memory.Transport):
        class Channel(kombu.transport.memory.Channel):
            def _put(self, _: str, message: dict[str, Any], **__: Any) -> None:
                sent.append(message)

    del stage
    app = Celery("strange", broker_transport=Connection, broker_url="memory://", set_as_current=False)
    app.send_task("dspyq.predict", queue=_QUEUE)  # without inputs: where it can be run after all, it fails
    return sent[0]


def _mutations(message: dict[str, Any], scale: Scale, count: int) -> Iterator[bytes]:
    """Give so many messages with one field of it left out, or replaced by what does not belong there."""
    junk = [None, 1, -1.5, "junk", "!!!", [], ["x"], {}, {"x": {}}, True, "\ud800", "x" * 10_000]
    paths = [(name,) for name in message]
    for name, part in message.items():
        if isinstance(part, dict):
            paths += [(name, inner) for inner in part]
    for _ in range(count):
        mutated = copy.deepcopy(message)
        *outer, last = scale.random.choice(paths)
        target = mutated[outer[0]] if outer else mutated
        if scale.random.random() < 0.2:
            del target[last]
        else:
            target[last] = scale.random.choice(junk)
        yield json.dumps(mutated).encode()
