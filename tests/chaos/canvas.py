"""Links and chords whose workers are killed between an answer and its acknowledgement."""

from __future__ import annotations

import contextlib
import time
from collections import Counter

from tests.chaos.callers import Call
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage, armed
from tests.support.processes import wait_until


def linked_and_chorded(point: str, scale: Scale) -> Outcome:
    """Kill workers at a point while links and chords are told; each must fire once."""
    deaths = scale.pick(quick=2, full=60)
    jobs = scale.pick(quick=10, full=100)
    is_rare = point == "mid-chord"  # only the last task of a chord comes by there
    probability = scale.pick(quick=1.0, full=0.7) if is_rare else scale.pick(quick=0.4, full=0.15)
    with Stage(concurrency=2) as stage:
        from celery import chord

        from dspyq import predict
        from tests.support.user_tasks import note, note_many

        for question in stage.questions(jobs):
            handle = predict.apply_async(kwargs={"question": question}, link=note.s())
            stage.listen(Call(question, handle, time.time()))
        chords = []
        for _ in range(jobs // 5):
            members = stage.questions(4)
            chords.append(chord([predict.s(question=member) for member in members])(note_many.s()))
            for member, handle in zip(members, chords[-1].parent.results, strict=True):
                stage.listen(Call(member, predict.AsyncResult(handle.id), time.time()))

        stage.worker(arguments=["-Q", "dspyq"])  # lives: it is not the user's own tasks that are repeated here
        environment_of = armed(point, scale, probability=probability, deaths=deaths)
        with stage.fleet(4, environment_of, arguments=["-Q", "qa.control"]), stage.redis.client() as client:
            stage.wait(scale.pick(quick=30, full=90))
            with contextlib.suppress(TimeoutError):
                wait_until(
                    lambda: client.llen("noted") >= jobs and client.llen("noted-many") >= len(chords),
                    scale.pick(quick=15, full=30),
                    "all links and chords",
                )
            found = stage.deaths()
            outcome = stage.outcome(
                f"links and chords, killed {point} ({len(found)}×)",
                stage.recovery(found),
                explained_model_calls=sum(death.paid for death in found),
            )
            noted, many = Counter(client.lrange("noted", 0, -1)), client.lrange("noted-many", 0, -1)
            missing = [call.handle.id for call in stage.calls[:jobs] if call.answer not in noted]
            remarks = [f"links of {', '.join(missing)} did not get the answer that is stored"] if missing else []
            if not found:
                remarks.append("no worker was killed")
            if len(many) < len(chords):
                remarks.append(f"{len(chords) - len(many)} chords did not reach their body")
            remarks += [f"a chord's body got {size} of 4" for size in many if size != "4"]
            return outcome.worsened(
                lost=(jobs - len(noted)) + max(0, len(chords) - len(many)),
                doubled_answers=sum(count - 1 for count in noted.values()) + max(0, len(many) - len(chords)),
                remarks=remarks,
            )
