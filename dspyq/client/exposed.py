"""Feedback tokens in predictions, of calls that an experiment counts."""

from __future__ import annotations

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
    return make_token(request.exposure, request.request_id, request.canonical_inputs)


def with_token(prediction: Prediction, request: Request | None) -> Prediction:
    """Return a prediction with the token of its caller's call, if there is one; an answer is worth more than that."""
    try:
        token = token_of(request)
    except (ConfigurationError, RedisUnavailable, DamagedKey) as error:
        tolerate("experiment_token", error)
        return prediction
    return prediction if token is None else prediction.with_exposure(token)
