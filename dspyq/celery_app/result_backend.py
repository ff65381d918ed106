"""The result backend: Celery's Redis backend, in which predictions' results are also the L2 cache."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
import redis
from celery.states import EXCEPTION_STATES, PROPAGATE_STATES, SUCCESS
from kombu.utils.encoding import bytes_to_str, str_to_bytes

from dspyq.cache.claim import Kept, Run, Stored
from dspyq.cache.claims import process_claims
from dspyq.cache.memory import process_cache
from dspyq.cache.statistics import run_counts, untimed
from dspyq.celery_app.groups import WaitHooks, arrivals
from dspyq.celery_app.spread_backend import SLOT_TAG, SpreadBackend
from dspyq.celery_app.tenant_content import encode_for, group_in_store, storing_for, tenant_of
from dspyq.celery_app.timeouts import members_timed_out, timed_out
from dspyq.config.programs import Program
from dspyq.config.secrets import scrub
from dspyq.config.settings import get_settings
from dspyq.core.money import to_nano_usd
from dspyq.core.names import HEADER
from dspyq.core.redis_address import parse_address
from dspyq.core.runtime import in_own_runtime
from dspyq.core.tolerated import tolerate
from dspyq.delivery.leases import process_leases
from dspyq.delivery.task_run import NOT_DELIVERED, delivery_of, task_run
from dspyq.experiments.failed_runs import count_failed_run
from dspyq.experiments.rows import write_row
from dspyq.prediction.prediction import Prediction, from_json, is_prediction, metadata_from_json
from dspyq.prediction.stored import (
    find_exception,
    is_whole,
    parse_meta,
    unreadable_error,
    unreadable_meta,
    with_own_module,
    with_stored_module,
)
from dspyq.store import content
from dspyq.store.clients import connection_pool
from dspyq.store.content import Kind, decode_result
from dspyq.store.keys import replies_channel
from dspyq.store.scripts import load_script
from dspyq.store.spines import by_owners, on_group, on_spine, places_of

#: kombu's marker of a type that JSON lacks; a user's own JSON may contain it too.
_KOMBU_TYPE = b'"__type__"'

#: Celery's record of a member for a chord's body: the form's number, task id, state and result.
_PART_LENGTH = 4
#: Options that Celery takes from a URL, or has a default for.
_OF_AN_ADDRESS = frozenset({"host", "port", "db", "username", "password", "connection_class", "path", "virtual_host"})


class PredictionBackend(SpreadBackend):
    """Stores predictions through their claims, and everything else as Celery does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # An answer is paid for: a Redis that refuses it now may accept it soon.
        errors: tuple[type[Exception], ...] = self.connection_errors
        self.connection_errors: tuple[type[Exception], ...] = (
            *errors,
            redis.OutOfMemoryError,
            redis.exceptions.ExecAbortError,
            redis.ReadOnlyError,
        )

    @in_own_runtime
    def as_uri(self, include_password: bool = False) -> str:  # noqa: FBT001, FBT002 - Celery's signature
        """Return the address, without user and password."""
        del include_password
        return str(parse_address(get_settings().answers_url))

    @in_own_runtime
    def _get_pool(self, **params: Any) -> redis.ConnectionPool:
        """Return connections to the answers, made as all others are."""
        options = {name: value for name, value in params.items() if name not in _OF_AN_ADDRESS}
        return connection_pool(parse_address(get_settings().answers_url), **options)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Subscribe to nothing: waiting subscribes, and most callers never wait."""

    def add_pending_result(self, result: Any, weak: bool = False, start_drainer: bool = True) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """Subscribe to nothing, as above."""
        del weak, start_drainer
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """Keep what there is: nothing."""
        return result

    def iter_native(  # noqa: PLR0913 - Celery's signature
        self,
        result: Any,
        no_ack: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        *,
        timeout: float | None = None,
        interval: float = 0.5,
        on_message: Any = None,
        on_interval: Any = None,
    ) -> Iterator[Any]:
        """Wait for a group's results, subscribed to only now, by the process's waiter."""
        del no_ack  # there is nothing to acknowledge in Redis
        late = self.runtime.bind(lambda missing: members_timed_out(missing, len(result.results), timeout or 0.0))
        hooks = WaitHooks(on_message, on_interval, interval)
        return arrivals(self, result.results, timeout=timeout, late=late, hooks=hooks)

    def _wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        on_interval: Any = None,
        on_message: Any = None,
        *,
        interval: float = 0.5,
        **_: Any,
    ) -> Iterator[Any]:
        """Wait for one result by the process's waiter, in place of Celery's consumer of results.

        That one looks once, beside a subscription that Redis may serve after the look: an answer that came between
        them would be lost.
        """
        late = self.runtime.bind(lambda _: timed_out(result.id, timeout or 0.0, getattr(result, "question", "")))
        hooks = WaitHooks(on_message, on_interval, interval)
        return arrivals(self, [result], timeout=timeout, late=late, hooks=hooks)

    @in_own_runtime
    def get(self, key: Any) -> Any:
        """Return what is stored under a key; of a task, its result."""
        stored = super().get(key)
        return stored and self._decoded(key, stored)

    @in_own_runtime
    def mget(self, keys: Any) -> Any:
        """Return what is stored under keys, as ``get``."""
        found = zip(keys, super().mget(keys), strict=True)
        return [stored and self._decoded(key, stored) for key, stored in found]

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        return self._named(super()._get_task_meta_for(task_id), self.get_key_for_task(task_id))

    def _named(self, meta: dict[str, Any], key: str | bytes) -> dict[str, Any]:
        """Return a result with its task id, which one that cannot be read lacks."""
        return meta if meta.get("task_id") else {**meta, "task_id": self._task_id(key)}

    @in_own_runtime
    def decode_result(self, payload: Any) -> dict[str, Any]:
        """Read a stored result; one that cannot be read is a failed one."""
        try:
            meta = self.decode(payload)
        except Exception as error:  # noqa: BLE001 - whatever wrote it, a reader gets a result or an error of ours
            tolerate("result", error)
            meta = unreadable_meta()
        meta = self.meta_from_decoded(meta if is_whole(meta) else unreadable_meta())
        if not isinstance(meta.get("task_id"), str):  # which Celery's consumer of results needs
            meta["task_id"] = ""
        return meta

    def prepare_exception(self, exc: Any, serializer: str | None = None) -> Any:
        """Return the stored form of an error, one that 0.1 can rebuild too."""
        return with_stored_module(super().prepare_exception(exc, serializer))

    def exception_to_python(self, exc: Any) -> Any:
        """Rebuild a stored error, except those that would end a thread or are no exceptions."""
        if exc is None or isinstance(exc, BaseException):
            return super().exception_to_python(exc)
        found = find_exception(exc)
        if isinstance(found, Exception):
            return found
        try:
            return super().exception_to_python(with_own_module(exc))
        except Exception as error:  # noqa: BLE001 - a name of no class, a class whose constructor fails
            tolerate("result", error)
            return unreadable_error()

    def decode(self, payload: Any) -> Any:
        """Read what is stored; a prediction as the plain JSON it is."""
        if isinstance(payload, bytes) and _KOMBU_TYPE in payload:
            meta = parse_meta(payload)
            if meta is not None and is_prediction(meta["result"]):
                return meta
        return super().decode(payload)

    @in_own_runtime
    def meta_from_decoded(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Turn a stored prediction into the object its caller gets."""
        meta = super().meta_from_decoded(meta)
        if is_prediction(meta["result"]):
            meta["result"] = from_json(meta["result"])
        return meta

    @in_own_runtime
    def on_chord_part_return(self, request: Any, state: str, result: Any, *args: Any, **kwargs: Any) -> None:
        """Count a task of a chord as done; the last one calls the chord's body.

        In Celery, the run that does so claims the chord for longer than a dead run's job may take to come back: without
        the claim's end the body would never be called. What two runs send is one job, as the body has its id.
        """
        delivery = delivery_of(request)
        with on_group(request.group or ""), storing_for(request):
            if request.group and (delivery is NOT_DELIVERED or delivery.run_count > 1):
                load_script(self.client, "dspyq.cache", "free_chord")([self.get_key_for_group(request.group, ".c")])
            super().on_chord_part_return(request, state, result, *args, **kwargs)

    def encode(self, data: Any) -> Any:
        """Write what Celery stores; a member's result on its way to the body of its chord as such."""
        written = super().encode(data)
        return encode_for(Kind.PART, group_in_store(), written) if _is_part(data) else written

    def _unpack_chord_result(self, tup: bytes, decode: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._unpack_chord_result(content.decode(Kind.PART, group_in_store(), tup), decode, *args, **kwargs)

    def _set_with_state(self, key: Any, value: Any, state: str) -> Any:
        task_id = self._task_id(key)
        return super()._set_with_state(key, encode_for(Kind.RESULT, task_id, value) if task_id else value, state)

    @in_own_runtime
    def _set(self, key: Any, value: Any, expires: int | None = None) -> None:
        """Store a value and publish it, a task's result also on the channel of the process that sent the task."""
        seconds = self.expires if expires is None else expires
        for place in places_of(self._strip_prefix(key)):
            with place, self.client.pipeline() as pipeline:
                pipeline.set(key, value, ex=seconds or None)
                pipeline.publish(key, value)
                if replies := replies_channel(task_id := self._task_id(key)):
                    pipeline.publish(replies, task_id.encode() + str_to_bytes(value))
                pipeline.execute()

    def _task_id(self, key: str | bytes) -> str:
        """Return whose result is under a key; empty for what is no task's."""
        name, prefix = SLOT_TAG.sub(b"", str_to_bytes(key)), str_to_bytes(self.task_keyprefix)
        return bytes_to_str(name.removeprefix(prefix)) if name.startswith(prefix) else ""

    def _decoded(self, key: str | bytes, stored: bytes) -> bytes:
        task_id = self._task_id(key)
        return decode_result(task_id, stored) if task_id else stored

    @in_own_runtime
    def forget(self, task_id: str) -> None:
        """Delete a result, so that its question is computed again on the next call."""
        meta = self.get_task_meta(task_id, cache=False)
        if isinstance(meta["result"], Prediction):
            input_hash = meta["result"].metadata.input_hash
            for _ in by_owners([input_hash], [input_hash]):
                process_claims().invalidate([input_hash])
                process_cache().invalidate(input_hash)  # at once in this process; the claims notify others
        super().forget(task_id)

    def _get_result_meta(
        self, result: Any, state: str, traceback: str | None, request: Any, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the stored result; that of a failed run with its cost."""
        meta: dict[str, Any] = super()._get_result_meta(result, state, traceback, request, *args, **kwargs)
        if (spent := task_run(request).spent) is not None:
            meta["spent"] = spent
        header = getattr(request, HEADER, None)
        if isinstance(header, Mapping):  # whose failure it is, should the task id be used again
            meta["input_hash"] = header.get("input_hash")
        return meta

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        if state in PROPAGATE_STATES and (run := _run_in_arms(task_id, request)):
            self.ensure(count_failed_run, run)
        if state in EXCEPTION_STATES:
            result, traceback = _scrubbed(result), scrub(traceback) if traceback else traceback
        if state != SUCCESS or not is_prediction(result):
            with storing_for(request):
                return super()._store_result(task_id, result, state, traceback=traceback, request=request, **kwargs)
        self.store_answer(task_id, result, request)
        return result

    def store_answer(self, task_id: str, result: dict[str, Any], request: Any) -> bool:
        """Store a prediction in Celery's form; return False if the run has lost its job."""
        meta = self._success_meta(result, request)
        meta["task_id"] = task_id
        return bool(self.ensure(self._store_prediction, (task_id, result, orjson.dumps(meta), request)))

    def _success_meta(self, result: dict[str, Any], request: Any) -> dict[str, Any]:
        """Return Celery's stored form of a success, without a lookup of its configuration for each."""
        if self._is_extended:
            return self._get_result_meta(result, SUCCESS, None, request)
        meta = {
            "status": SUCCESS,
            "result": result,
            "traceback": None,
            "children": self.current_task_children(request),
            "date_done": datetime.now(UTC).isoformat(),
        }
        if request and request.group:
            meta["group_id"] = request.group
        if request and request.parent_id:
            meta["parent_id"] = request.parent_id
        return meta

    @functools.cached_property
    def _is_extended(self) -> bool:
        return bool(self.app.conf.find_value_for_key("extended", "result"))

    def _store_prediction(self, task_id: str, result: dict[str, Any], payload: bytes, request: Any) -> bool:
        metadata = metadata_from_json(result["metadata"])
        settings = get_settings()
        program = settings.programs[metadata.program]
        counts: Mapping[str, int]
        if task_run(request).is_answer_stored:
            counts = {}  # stored again, with the children that Celery has sent meanwhile
        elif metadata.cached:
            counts = {"successes": int(metadata.cache_level == "joined")}
        else:
            counts = run_counts(
                is_success=True,
                duration_seconds=metadata.duration_seconds,
                prompt_tokens=metadata.usage.prompt_tokens,
                completion_tokens=metadata.usage.completion_tokens,
                cost_usd=metadata.cost_usd,
            )
            counts = untimed(counts) if delivery_of(request).run_count > 1 else counts
        stored = Stored(
            payload=payload,
            serve_seconds=program.cache_ttl_seconds if metadata.is_cacheable(program) else 0,
            keep_seconds=max(program.cache_ttl_seconds, settings.cache.result_ttl_seconds),
            counts=counts,
            cost_nano_usd=to_nano_usd(metadata.cost_usd or 0.0),
            is_last=request is not None and not (request.callbacks or request.chain or request.chord),
            time_ms=round(metadata.duration_seconds * 1e3),
            tokens=metadata.usage.total_tokens,
            is_fallback=metadata.fallback is not None,
            found=metadata.cache_level or "",
            unscored=b"" if metadata.cached else task_run(request).unscored,
            row=_row_of(program, task_id, result, request),
            tenant=tenant_of(request),
            is_own_id=_has_own_id(request),
        )
        tag, job = delivery_of(request).tag, delivery_of(request).runtime
        run = Run.of_delivery_tag(task_id, tag)
        # Where the job is: its question may be elsewhere, if it has moved or the job was sent by its task's name alone.
        with on_spine(metadata.input_hash) if job is None else job.active(), process_leases().storing(tag) as lease:
            kept = process_claims().answer(metadata, run, stored)
            lease.is_finished = Kept.ENDED in kept
        task_run(request).awaits_scores |= Kept.UNSCORED in kept
        return kept != Kept.LOST


def _run_in_arms(task_id: str, request: Any) -> tuple[str, str, str] | None:
    """Return the queue, task and fence of a run of a program that may have an experiment; None for any other."""
    header = getattr(request, HEADER, None)
    if not isinstance(header, Mapping):
        return None
    program = get_settings().programs.get(str(header.get("program")))
    if program is None or len(program.variants) == 1:
        return None
    fence = Run.of_delivery_tag(task_id, delivery_of(request).tag).fence
    return f"{program.name}.{header.get('variant')}", task_id, fence


def _has_own_id(request: Any) -> bool:
    """Return whether a task claimed no question when it was sent."""
    header = getattr(request, HEADER, None)
    return request is not None and not (isinstance(header, Mapping) and header.get("is_claimed"))


def _row_of(program: Program, task_id: str, result: Mapping[str, Any], request: Any) -> bytes:
    """Return what the program's experiment keeps of an answer for exports; empty for nothing."""
    header = getattr(request, HEADER, None) if program.experiment and program.experiment.keep_rows else None
    if not isinstance(header, Mapping) or not isinstance(request.kwargs, Mapping):
        return b""
    stated = str(header.get("fingerprint"))
    return write_row(task_id, stated, request.kwargs, result["outputs"], tenant_of(request))


def _is_part(data: object) -> bool:
    """Return whether Celery stores this for the body of a chord."""
    return isinstance(data, list) and len(data) == _PART_LENGTH and data[0] == 1


def _scrubbed(value: Any) -> Any:
    """Return a stored exception without secrets: its type stays, its texts may quote a provider."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {name: _scrubbed(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_scrubbed(part) for part in value]
    return value
