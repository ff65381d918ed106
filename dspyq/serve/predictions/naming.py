"""Calls under their public ids, as the resources of the API."""

from __future__ import annotations

from dspyq.serve.callers import Caller
from dspyq.serve.exchange import Exchange
from dspyq.serve.predictions.ids import CallOfPrediction, read_id, write_id
from dspyq.serve.predictions.rendering import PublicCall
from dspyq.serve.problems import NOT_FOUND, Declined
from dspyq.serve.streams.tokens import write_token


def name_call(exchange: Exchange, caller: Caller, call: CallOfPrediction) -> PublicCall:
    """Return the call that a request is about, with its public id, and note that for the access log."""
    public = public_call(exchange, caller, call)
    exchange.prediction, exchange.cache_level = public.public_id, call.cache_level or ""
    return public


def public_call(exchange: Exchange, caller: Caller, call: CallOfPrediction) -> PublicCall:
    """Return a call with its public id."""
    return _with_paths(exchange, caller, call, write_id(call, caller.tenant, exchange.door.signing_key()))


def events_path(exchange: Exchange, caller: Caller, public: PublicCall) -> str:
    """Return the path of a call's stream, with a token for clients that can send no header."""
    token = write_token(public.public_id, caller.tenant, exchange.door.signing_key())
    return f"{public.path}/events?token={token}"


def resolve(exchange: Exchange, caller: Caller, public_id: str) -> PublicCall:
    """Return the call that a public id names.

    Raises:
        Declined: With 404, for one that this fleet did not make for the caller's tenant.
    """
    call = read_id(public_id, caller.tenant, exchange.door.signing_key())
    if call is None:
        raise Declined(NOT_FOUND, "there is no prediction of this id")
    exchange.prediction = public_id
    return _with_paths(exchange, caller, call, public_id)


def _with_paths(exchange: Exchange, caller: Caller, call: CallOfPrediction, public_id: str) -> PublicCall:
    path = exchange.path(f"/v1/predictions/{public_id}")
    token = write_token(public_id, caller.tenant, exchange.door.signing_key())
    return PublicCall(call, public_id, path, f"{path}/events?token={token}")
