"""The result backend: Celery's own on Redis, in which a prediction's result is also the L2 cache."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
import redis
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.states import SUCCESS

from dspyq.cache.claims import Kept, Run, Stored, process_claims
from dspyq.cache.memory import process_cache
from dspyq.cache.statistics import run_counts
from dspyq.config.settings import get_settings
from dspyq.core.money import to_nano_usd
from dspyq.delivery.leases import process_leases
from dspyq.prediction.prediction import Prediction, from_json, is_prediction, metadata_from_json
from dspyq.store.scripts import load_script


class PredictionBackend(RedisBackend):  # type: ignore[misc]  # celery ships no types
    """Stores predictions through their claims, and everything else as Celery does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # An answer is paid for: a Redis that refuses it now may take it soon.
        errors: tuple[type[Exception], ...] = self.connection_errors
        self.connection_errors: tuple[type[Exception], ...] = (
            *errors,
            redis.OutOfMemoryError,
            redis.exceptions.ExecAbortError,
            redis.ReadOnlyError,
        )

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Subscribe to nothing: who waits subscribes, and most callers never do."""

    def iter_native(self, result: Any, no_ack: bool = True, **kwargs: Any) -> Iterator[Any]:  # noqa: FBT001, FBT002 - Celery's signature
        """Wait for a group's results, subscribed to only now."""
        for member in result.results:
            if hasattr(member, "_cache") and member._cache is None:  # noqa: SLF001 - as Celery's own iter_native asks
                self.add_pending_result(member)
        yield from super().iter_native(result, no_ack=no_ack, **kwargs)

    def meta_from_decoded(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Turn a stored prediction into the object its caller gets."""
        meta = super().meta_from_decoded(meta)
        if is_prediction(meta["result"]):
            meta["result"] = from_json(meta["result"])
        return meta

    def on_chord_part_return(self, request: Any, state: str, result: Any, *args: Any, **kwargs: Any) -> None:
        """Count a task of a chord as done; the last one calls the chord's body.

        Celery has the run that does so claim the chord, for longer than a dead run's job may take to come back: without
        the claim's end nobody would call the body any more. What two runs send is one job, for the body has its id.
        """
        is_first_run = (request.properties or {}).get("run_count") == 1
        if request.group and not is_first_run:
            load_script(self.client, "dspyq.cache", "free_chord")(keys=[self.get_key_for_group(request.group, ".c")])
        super().on_chord_part_return(request, state, result, *args, **kwargs)

    def forget(self, task_id: str) -> None:
        """Forget a result; the next caller of its question computes it anew."""
        meta = self.get_task_meta(task_id, cache=False)
        if isinstance(meta["result"], Prediction):
            input_hash = meta["result"].metadata.input_hash
            process_claims().invalidate([input_hash])
            process_cache().invalidate(input_hash)  # here at once; others hear of it
        super().forget(task_id)

    def _get_result_meta(
        self, result: Any, state: str, traceback: str | None, request: Any, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return what is stored; where a run of ours failed, with what it had spent."""
        meta: dict[str, Any] = super()._get_result_meta(result, state, traceback, request, *args, **kwargs)
        if (spent := getattr(request, "spent", None)) is not None:
            meta["spent"] = spent
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
        if state != SUCCESS or not is_prediction(result):
            return super()._store_result(task_id, result, state, traceback=traceback, request=request, **kwargs)
        self.store_answer(task_id, result, request)
        return result

    def store_answer(self, task_id: str, result: dict[str, Any], request: Any) -> bool:
        """Store a prediction as Celery does its results; return False where the run has lost its job."""
        meta = self._success_meta(result, request)
        meta["task_id"] = task_id
        return bool(self.ensure(self._store_prediction, (task_id, result, orjson.dumps(meta), request)))

    def _success_meta(self, result: dict[str, Any], request: Any) -> dict[str, Any]:
        """Return what Celery stores of a success: the same, without asking its configuration about each."""
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
        if getattr(request, "is_answer_stored", False):
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
        stored = Stored(
            payload=payload,
            serve_seconds=0 if metadata.fallback else program.cache_ttl_seconds,
            keep_seconds=max(program.cache_ttl_seconds, settings.cache.result_ttl_seconds),
            counts=counts,
            cost_nano_usd=to_nano_usd(metadata.cost_usd or 0.0),
            is_last=request is not None and not (request.callbacks or request.chain or request.chord),
        )
        delivery_tag = (request.properties or {}).get("delivery_tag") if request else None
        run = Run.of_delivery_tag(task_id, delivery_tag)
        with process_leases().storing(delivery_tag or "") as lease:
            kept = process_claims().answer(metadata, run, stored)
            lease.is_finished = kept is Kept.ENDED
        return kept is not Kept.LOST


class SentinelPredictionBackend(PredictionBackend, SentinelBackend):  # type: ignore[misc]  # celery ships no types
    """The same, on whichever Redis the sentinels name."""
