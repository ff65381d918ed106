"""Feedback tokens in predictions, of calls that an experiment counts."""

from __future__ import annotations

import functools

from dspyq.core.runtime import Runtime, current
from dspyq.core.tolerated import tolerate
from dspyq.errors import ConfigurationError, DamagedKey, RedisUnavailable
from dspyq.experiments.token import make_token
from dspyq.prediction.prediction import Prediction
from dspyq.prediction.request import Request


def token_of(request: Request | None) -> str | None:
    """Return the token of a call; None where no experiment counts it.

    Raises:
        ConfigurationError: If the secret that signs it is to come from a variable that is unset.
        RedisUnavailable: If the fleet's secret cannot be read, and never was.
        DamagedKey: If another program wrote to its key.
    """
    if request is None or request.exposure is None:
        return None
    return make_token(request.exposure, request.request_id, request.canonical_inputs, request.input_hash)


def with_token(prediction: Prediction, request: Request | None) -> Prediction:
    """Return a caller's own prediction, which makes the token of its call, if there is one, when that is read."""
    if request is not None and request.exposure is not None:
        prediction.metadata.expose(functools.partial(token_if_any, current(), request))
    return prediction


def token_if_any(runtime: Runtime, request: Request | None) -> str | None:
    """Return the token, or None where it cannot be made: an answer is worth more than that."""
    if request is None or request.exposure is None:  # as of most calls; entering a runtime takes microseconds
        return None
    try:
        with runtime.active():
            return token_of(request)
    except (ConfigurationError, RedisUnavailable, DamagedKey) as error:
        tolerate("experiment_token", error)
        return None
