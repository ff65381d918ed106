"""Interest of a client that asked for a stream: the call is withdrawn when the client is gone for good.

The latest connection of the client has the interest, whichever process it leads to: one that dropped and came back
within ``serve.hangup_seconds`` withdraws nothing.
"""

from __future__ import annotations

from typing import Final

from dspyq.core.ids import new_id
from dspyq.serve.predictions.ids import CallOfPrediction
from dspyq.serve.predictions.withdrawal import withdraw
from dspyq.store.clients import money_client, redis_errors
from dspyq.store.keys import key
from dspyq.store.scripts import load_script

#: A client that listens for longer may hang up without ending its call.
_KEPT_SECONDS: Final = 3_600


def begin_interest(call: CallOfPrediction) -> str:
    """Note that a connection streams a call that it has asked; return the connection's name.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    owner = new_id()
    with redis_errors("stream the prediction"):
        money_client().set(_key(call), owner, ex=_KEPT_SECONDS)
    return owner


def take_over(call: CallOfPrediction) -> str:
    """Take the interest over for another connection; return its name, empty where no connection had it.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    owner = new_id()
    with redis_errors("stream the prediction"):
        is_taken = money_client().set(_key(call), owner, ex=_KEPT_SECONDS, xx=True)
    return owner if is_taken else ""


def end_interest(call: CallOfPrediction, owner: str) -> bool:
    """Forget a connection's interest; return False if another connection has taken it over.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("stream the prediction"):
        return bool(load_script(money_client(), "dspyq.serve.streams", "end_interest")((_key(call),), owner=owner))


def withdraw_interest(call: CallOfPrediction, owner: str) -> None:
    """Withdraw a call whose client is gone, unless another connection has taken it over.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    if end_interest(call, owner):
        withdraw(call, "cancelled")


def _key(call: CallOfPrediction) -> str:
    return key("serve-stream:") + call.call_id
