"""Streams whose worker dies: their listeners have the right text at the end, and each call is billed once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from typing import Any

from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import REPLY, Stage
from tests.support.processes import wait_until

_LISTENERS = 2
_LISTEN_SECONDS = 40.0


class StreamText(threading.Thread):
    """The text of one listener of a stream.

    Attributes:
        text: What it has so far.
        resets: The reasons for which what it had was void.
    """

    def __init__(self, handle: Any) -> None:
        super().__init__(daemon=True)
        self._handle = handle
        self.text = ""
        self.resets: list[str] = []
        self.start()

    def run(self) -> None:
        """Listen."""
        for chunk in self._handle.stream(timeout=_LISTEN_SECONDS):
            if chunk.kind == "delta":
                self.text += chunk.text
            elif chunk.kind == "reset":
                self.text = ""
                self.resets.append(chunk.text)


def killed_in_mid_stream(scale: Scale) -> Outcome:
    """Kill a worker while all of its threads stream; another takes its jobs over."""
    running = scale.pick(quick=6, full=30)
    with Stage(concurrency=running) as stage:
        doomed = stage.worker()
        stage.endpoint.script(content=REPLY, piece_characters=4, piece_interval_seconds=0.5)
        questions = stage.questions(running, "a question that is long enough to be answered in some pieces")
        calls = [call for each in questions for call in stage.ask([each], callers=_LISTENERS, stream=True)]
        listeners = [StreamText(call.handle) for call in calls]
        wait_until(lambda: all(listener.text for listener in listeners), 30, "text for every listener")
        other = stage.worker(waits=False)
        killed_at = time.time()
        doomed.kill()
        stage.endpoint.clear()
        stage.endpoint.script(content=REPLY, piece_characters=4)
        other.ready()
        stage.wait(40, calls)
        for listener in listeners:
            listener.join(_LISTEN_SECONDS)
        remarks = list(_faults(stage, calls, listeners, held=running))
        recovery = stage.recovery_from(killed_at, calls)
        return stage.outcome(
            f"SIGKILL with {running} streaming", recovery, explained_model_calls=running, remarks=remarks
        )


def _faults(stage: Stage, calls: list[Any], listeners: list[StreamText], *, held: int) -> list[str]:
    """Return what is wrong with texts and money."""
    wrong = sum(listener.text != call.answer for call, listener in zip(calls, listeners, strict=True))
    resets = Counter(tuple(listener.resets) for listener in listeners)
    found = []
    if wrong:
        found.append(f"{wrong} listeners have another text than the answer")
    if resets != {("rerun",): len(listeners)}:
        found.append(f"the texts began anew for {dict(resets)}")
    with stage.money.client() as client, contextlib.suppress(TimeoutError):
        wait_until(lambda: client.zcard("dspy:v1:budget:leases") == held, 5, "the bills")
        return found
    return [*found, "the killed calls are not held once each, to be charged at their bound"]
