"""Replies of the provider as they come: for the guards one call, for the run's stream its text.

DSPy's own way of streaming is not used. It sends each chunk into an event loop, which Celery's threads do not have,
and it gives up the adapters' fallbacks once text was sent.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from dspy import lm15
from dspy._vendor.lm15.result import StreamAccumulator

from dspyq.guards.interruptions import Cut, JobLost
from dspyq.programs.deadline import deadline
from dspyq.programs.running_ledger import ledger_of_call
from dspyq.programs.stream_follower import running_speech
from dspyq.programs.tap import CallTap, Tap


def exchange(native: Any, request: lm15.Request, clock: deadline) -> lm15.Response:
    """Send a request and return the whole reply; its text goes into the run's stream meanwhile, where there is one.

    Args:
        native: DSPy's engine.
        request: The request.
        clock: The wall clock of the attempt.

    Raises:
        Cut: If the run has lost its job: then the connection is closed.
    """
    speech = running_speech()
    if speech is None:
        return native.complete(request)
    tap = speech.tap
    tap.log.at_loss(clock.cut)
    try:
        if speech.fields and speech.make_splitter is not None:
            return _stream(native, request, tap, CallTap(tap, speech.make_splitter, speech.fields))
        return native.complete(request)
    except Exception as error:
        _check_held(tap, error)
        raise
    finally:
        tap.log.not_at_loss(clock.cut)


def _stream(native: Any, request: lm15.Request, tap: Tap, call: CallTap) -> lm15.Response:
    whole = StreamAccumulator(request)
    try:
        with closing(native.stream(request)) as events:
            for event in events:
                whole.push(event)
                if event.type == "delta" and event.delta.type == "text" and event.delta.text:
                    call.text(event.delta.text)
                _check_held(tap)
    except lm15.UnsupportedFeatureError:  # of a provider without streams: nothing was sent
        call.fail()
        tap.status_once("stream", "the provider sends its replies in one piece")
        return native.complete(request)
    except BaseException:
        call.fail()
        raise
    call.end()
    return whole.response()


def _check_held(tap: Tap, cause: Exception | None = None) -> None:
    """End a call whose run has lost its job.

    Raises:
        Cut: If it has.
    """
    if tap.is_lost:
        ledger_of_call().interrupt(JobLost())
        raise Cut("the run has lost its job") from cause
