"""Workers that die, freeze, lose their connections or have a wrong clock."""

from __future__ import annotations

import time

from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import LEASE_SECONDS, Stage


def killed_running(scale: Scale) -> Outcome:
    """Kill a worker with all of its threads at the model; another takes its jobs over."""
    running = scale.pick(quick=8, full=50)
    recovery: list[float] = []
    rounds = scale.pick(quick=1, full=5)
    with Stage(concurrency=running) as stage:
        doomed, other = stage.worker(), None
        for _ in range(rounds):
            stage.endpoint.hold()
            calls = stage.ask(stage.questions(running), callers=2)
            stage.wait_for_in_flight(running)
            other = stage.worker()
            killed_at = time.time()
            doomed.kill()
            stage.endpoint.release()
            stage.wait(30, calls)
            recovery += stage.recovery_from(killed_at, calls)
            doomed = other
        return stage.outcome(f"SIGKILL with {running} running", recovery, explained_model_calls=running * rounds)


def frozen_and_thawed(scale: Scale) -> Outcome:
    """Freeze a worker until another has its jobs; then thaw it and kill the other at the same moment."""
    running = scale.pick(quick=8, full=30)
    with Stage(concurrency=running) as stage:
        frozen = stage.worker()
        stage.endpoint.hold()
        calls = stage.ask(stage.questions(running), callers=2)
        stage.wait_for_in_flight(running)
        other = stage.worker()
        frozen.stop()
        stage.endpoint.wait_for_calls(2 * running, LEASE_SECONDS + 10)
        changed_at = time.time()
        frozen.cont()
        other.kill()
        stage.endpoint.release()
        stage.wait(30)
        return stage.outcome(
            f"frozen with {running} running, thawed, its heir killed",
            stage.recovery_from(changed_at, calls),
            explained_model_calls=2 * running,
        )


def connections_cut(scale: Scale) -> Outcome:
    """Cut every connection, three times, under jobs longer than their lease."""
    running = scale.pick(quick=4, full=12)
    model_seconds = scale.pick(quick=1.5, full=3.0) * LEASE_SECONDS
    with Stage(model_seconds=model_seconds, concurrency=running) as stage:
        workers = [stage.worker(waits=False) for _ in range(2)]
        for worker in workers:
            worker.ready()
        asked_at = time.time()
        stage.ask(stage.questions(2 * running), callers=2)
        stage.wait_for_in_flight(2 * running)
        for _ in range(3):
            time.sleep(model_seconds / 5)
            stage.redis.cut_connections()
        stage.wait(30)
        recovery = stage.recovery_from(asked_at, stage.calls)
        remarks = stage.all_consume(2, running)
        stage.wait(30)
        return stage.outcome("connections cut 3× under long jobs", recovery, remarks=remarks)


def wrong_clocks(scale: Scale) -> Outcome:
    """Have workers a minute ahead and a minute behind beside a right one, under jobs longer than their lease."""
    model_seconds = 1.5 * LEASE_SECONDS
    with Stage(model_seconds=model_seconds, concurrency=2) as stage:
        workers = [stage.worker({"TEST_CLOCK_AHEAD_SECONDS": ahead}, waits=False) for ahead in ("60", "-60", "0")]
        for worker in workers:
            worker.ready()
        for _ in range(scale.pick(quick=1, full=4)):
            calls = stage.ask(stage.questions(6), callers=2)
            calls += stage.ask(stage.questions(1), countdown=1)
            stage.wait(30, calls)
        return stage.outcome("clocks wrong by a minute", [])


def rolling_restart(scale: Scale) -> Outcome:
    """Replace each worker of a fleet under load, one after another."""
    size = scale.pick(quick=2, full=4)
    with Stage(model_seconds=0.3, concurrency=4) as stage:
        workers = [stage.worker(waits=False) for _ in range(size)]
        for worker in workers:
            worker.ready()
        with stage.load(scale.pick(quick=15, full=30), is_patient=False) as load:
            for _ in range(scale.pick(quick=1, full=3)):
                for index in range(size):
                    successor = stage.worker()
                    workers[index].terminate(30)
                    workers[index] = successor
        stage.wait(30)
        waited = [call.answered_at - call.asked_at for call in stage.calls if call.answered_at]
        return stage.outcome(
            "rolling restart under load",
            [max(0.0, seconds - stage.model_seconds) for seconds in waited],
            remarks=[f"{count} callers were refused: {text}" for text, count in load.refusals.items()],
        )
