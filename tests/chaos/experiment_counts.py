"""Counts of an experiment under faults: equal to a replay of what its callers asked and got."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage
from tests.support.configuration import merged
from tests.support.experiments import with_experiment
from tests.support.producer_process import Producer

_POINTS = ("after-take", "after-begin", "before-store", "mid-store", "after-store", "before-ack", "mid-finish")
_MODEL_SECONDS = 0.15
#: A caller that withdraws within this, of a question that was never asked before, withdraws before its answer.
_MOST_TRIES = 10
_SURELY_WAITING_SECONDS = 0.1
_TODAY = 20_000
_SECONDS_THAT_A_KILL_COSTS = 1.5  # its last second, and the flush under way


def _settings() -> dict[str, Any]:
    arms = {
        "control": {"model": "control", "weight": 0.5},
        "challenger": {"model": "control", "weight": 0.5, "temperature": 0.5},
    }
    return merged({"programs": {"qa": {"variants": arms}}}, with_experiment())


@dataclass
class _Event:
    """A call, and what its caller knows of it."""

    unit: str
    handle: Any = None
    is_withdrawn: bool = False
    is_failed: bool = False


class _Callers:
    """Callers of all kinds, whose every choice the seed decides."""

    def __init__(self, scale: Scale) -> None:
        self._random = scale.random
        self._numbers = itertools.count(1)
        self.events: list[_Event] = []
        self.remarks: list[str] = []
        self.errors: Counter[str] = Counter()

    def ask(self, calls: int) -> None:
        """Make calls of one unit after the other."""
        kinds = (self._plain, self._many, self._own_id, self._refreshed, self._joined_and_withdrawn)
        for _ in range(calls):
            self._random.choices(kinds, (10, 2, 3, 1, 2))[0](f"user {self._skewed(9)}")
            time.sleep(self._random.random() * 0.08)

    def wait(self, seconds: float) -> None:
        """Wait for all answers and failures."""
        ends_at = time.monotonic() + seconds
        for event in self.events:
            if event.is_withdrawn:
                continue
            try:
                event.handle.get(timeout=max(0.1, ends_at - time.monotonic()))
            except TimeoutError:
                self.remarks.append("a caller heard nothing")
            except Exception as error:  # noqa: BLE001 - what its caller sees
                event.is_failed = True
                self.errors[type(error).__name__] += 1

    def _skewed(self, most: int) -> int:
        return int(most * self._random.random() ** 2)

    def _question(self) -> str:
        number = self._skewed(30)
        return f"refused {number}" if number % 7 == 3 else f"question {number}"

    def _plain(self, unit: str, question: str | None = None, **options: Any) -> _Event:
        from dspyq import predict

        question = question or self._question()
        event = _Event(unit, predict.apply_async(kwargs={"question": question}, unit=unit, **options))
        self.events.append(event)
        return event

    def _many(self, unit: str) -> None:
        from dspyq import predict

        rows = [{"question": self._question()} for _ in range(4)]
        self.events += [_Event(unit, handle) for handle in predict.many(rows, unit=unit)]

    def _own_id(self, unit: str) -> None:
        self._plain(unit, task_id=f"own-{next(self._numbers)}")

    def _refreshed(self, unit: str) -> None:
        self._plain(unit, refresh=True)

    def _joined_and_withdrawn(self, unit: str) -> None:
        question = f"fresh {next(self._numbers)}"
        self._plain(unit, question)
        asked_at = time.monotonic()
        leaves = self._plain(unit, question)
        self._cancel(leaves)
        leaves.is_withdrawn = leaves.handle.cache_level == "joined"
        if time.monotonic() - asked_at > _SURELY_WAITING_SECONDS and leaves.is_withdrawn:
            # It may have been too late. Then its run has ended, and the call counts.
            leaves.is_withdrawn = self._is_uncounted(leaves)

    def _cancel(self, event: _Event) -> None:
        """Cancel as a caller does whose connections are cut: again."""
        from dspyq.errors import RedisUnavailable

        for _ in range(_MOST_TRIES):
            with contextlib.suppress(RedisUnavailable):
                event.handle.cancel()
                return
        raise RedisUnavailable("a cancellation failed again and again")

    def _is_uncounted(self, event: _Event) -> bool:
        from dspyq.store.clients import jobs_client
        from dspyq.store.keys import key
        from dspyq.store.spines import on_spine

        with on_spine(event.handle.request.input_hash):
            open_key = key("experiment-open:") + event.handle.id
            return not jobs_client().hexists(open_key, event.handle.request.noted_as)


def undisturbed(scale: Scale) -> Outcome:
    """Let callers ask, join, fail, refresh and withdraw, and nothing else happen."""
    return _replayed(scale, deaths=0)


def replayed(scale: Scale) -> Outcome:
    """Kill workers at random points and cut connections under the same callers."""
    return _replayed(scale, deaths=scale.pick(quick=6, full=25))


def _replayed(scale: Scale, *, deaths: int) -> Outcome:
    calls = scale.pick(quick=100, full=300)
    with Stage(model_seconds=_MODEL_SECONDS, concurrency=2, settings=_settings()) as stage:
        from dspyq.config.settings import get_settings
        from dspyq.experiments import administration

        program = get_settings().programs["qa"]
        state, table = administration.start(program), administration.plan_of(program).table
        stage.endpoint.script(containing="refused", status=400)
        points = [scale.random.choice(_POINTS) for _ in range(1_000)]

        def environment_of(number: int) -> dict[str, str]:
            return {
                "TEST_FAILPOINT": points[number],
                "TEST_FAILPOINT_PROBABILITY": "0.3",
                "TEST_FAILPOINT_SEED": f"{scale.seed}-{number}",
                "TEST_FAILPOINT_DEATHS": str(deaths),
            }

        callers, is_over = _Callers(scale), threading.Event()

        def cut() -> None:
            while not is_over.wait(0.7):
                with contextlib.suppress(Exception):
                    stage.redis.cut_connections()

        cutter = threading.Thread(target=cut)
        with stage.fleet(3, environment_of if deaths else lambda _: {}):
            if not deaths:
                is_over.set()
            cutter.start()
            callers.ask(calls)
            is_over.set()
            cutter.join()
            callers.wait(scale.pick(quick=60, full=200))
            remarks = [*callers.remarks, *_differences(stage, callers.events, state, table)]
        killed = stage.death_count()
        if (killed > 0) != (deaths > 0):
            remarks.append(f"{killed} workers were killed")
        return Outcome(
            f"an experiment's counts, workers killed {killed}×", len(callers.events), 0, 0, 0, 0, (), 0.0,
            tuple(remarks), {"calls": len(callers.events), "killed": killed, **callers.errors},
        )  # fmt: skip


def _differences(stage: Stage, events: list[_Event], state: Any, table: Any) -> list[str]:
    """Return what an arm's sums have otherwise than a replay of the calls."""
    from dspyq.experiments.placement import digest_of_unit, place
    from dspyq.experiments.sums_reader import read_sums
    from dspyq.experiments.tally import process_tally
    from dspyq.store.spines import each_spine

    for _ in each_spine():
        process_tally().flush()
    found = []
    with stage.redis.client(decode_responses=False) as client:
        for arm, reading in read_sums(state, table, today=_TODAY).items():
            own = [event for event in events if place(state.placing, event.unit).variant == arm]
            counted = [event for event in own if not event.is_withdrawn]
            computed = {event.handle.id for event in counted if _is_computed(client, event.handle.id)}
            expected = {
                "units": len({event.unit for event in own}),
                "calls": dict(Counter(digest_of_unit(state.salt, event.unit).bucket for event in counted)),
                "failed": sum(event.is_failed for event in counted),
                "answers": len(computed),
            }
            of_calls, of_answers = reading.metrics["call.failed"].by_unit, reading.metrics["answer.cost"].by_unit
            seen = {
                "units": reading.units,
                "calls": {bucket: int(n) for bucket, n in enumerate(of_calls.denominators) if n},
                "failed": int(sum(of_calls.numerators)),
                "answers": int(sum(of_answers.denominators)),
            }
            found += [
                f"{arm}: {name} are {seen[name]}, and {expected[name]} in the replay"
                for name in expected
                if expected[name] != seen[name]
            ]
            if not counted or not expected["failed"] or not computed:
                found.append(f"{arm}: nothing was asked, or nothing failed, or nothing was answered")
    return found


def _is_computed(client: Any, task_id: str) -> bool:
    """Return whether a task computed the answer that is stored for it."""
    stored = client.get(f"celery-task-meta-{task_id}")
    meta = orjson.loads(stored) if stored else {}
    return meta.get("status") == "SUCCESS" and not meta["result"]["metadata"]["cached"]


def producer_killed(scale: Scale) -> Outcome:
    """Kill producers while a cache answers them: of their hits at most the last second is not counted."""
    kills = scale.pick(quick=1, full=5)
    with Stage(settings=_settings()) as stage, tempfile.TemporaryDirectory(prefix="hits-") as folder:
        from dspyq import predict
        from dspyq.config.settings import get_settings
        from dspyq.experiments import administration
        from dspyq.experiments.placement import place
        from dspyq.experiments.sums_reader import read_sums

        program = get_settings().programs["qa"]
        state, table = administration.start(program), administration.plan_of(program).table
        stage.worker()
        predict.apply_async(kwargs={"question": "asked often"}, unit="user").get(timeout=20)
        asked, sure, remarks = 1, 1, []
        for number in range(kills):
            log = Path(folder) / str(number)
            producer = Producer(_hit_for_ever, {"log": str(log)}, stage.environment())
            time.sleep(4 + scale.random.random())
            killed_at = time.time()
            producer.process.kill()
            producer.close()
            times = [float(line) for line in log.read_text().splitlines()] if log.exists() else []
            asked += len(times)
            sure += sum(at < killed_at - _SECONDS_THAT_A_KILL_COSTS for at in times)
            if not times:
                remarks.append("a producer asked nothing")
        arm = place(state.placing, "user").variant
        seen = int(sum(read_sums(state, table, today=_TODAY)[arm].metrics["call.hit"].by_unit.denominators))
        if not sure <= seen <= asked:
            remarks.append(f"{seen} calls are counted, not {sure} to {asked}")
        return Outcome(
            f"an experiment's counts, producer killed ({kills}×)", asked, 0, 0, 0, 0, (), 0.0,
            tuple(remarks), {"asked": asked, "counted": seen},
        )  # fmt: skip


def _hit_for_ever(log: str) -> None:
    import time

    from dspyq import predict

    with open(log, "a", buffering=1) as file:  # noqa: PTH123 - a line at once
        while True:
            predict.apply_async(kwargs={"question": "asked often"}, unit="user").get(timeout=20)
            file.write(f"{time.time()}\n")
            time.sleep(0.002)
