"""Requests and replies of a provider's batch interface, as DSPy's engine writes and reads those of live calls.

A line of a batch holds the body of a live request, and its result the body of a live reply. So both pass through the
same codec, and a program gets the same answer from either.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from dspy import lm15
from dspy._vendor.lm15.adaptation import collecting
from dspy._vendor.lm15.providers.base import HttpResponse, _client_side_stop, batch_entry_request
from dspy._vendor.lm15.registry import lookup
from dspy.clients.engines.lm15_engine import LM15Engine

from dspyq.config.lanes import BATCH_DIALECTS, Lane
from dspyq.config.models import Model
from dspyq.config.secrets import process_secrets
from dspyq.errors import ConfigurationError
from dspyq.guards.call import CallReply
from dspyq.guards.provider_access import ProviderAccess
from dspyq.programs.endpoint import ProviderTransport
from dspyq.programs.failures import Failure, classify
from dspyq.programs.prices import Pricing
from dspyq.programs.provider_call import dump, dump_what_is_unusual
from dspyq.programs.repair import mended
from dspyq.programs.stated_errors import attach_bill, billed_reply, find_stated_error, response_of

#: Parts of a live request that a line may not have: batches do not stream, and are a tier of their own.
_LIVE_ONLY = ("stream", "stream_options", "service_tier")
#: Headers of a live request that describe its body.
_OF_A_BODY = frozenset({"content-type", "content-length", "accept", "accept-encoding"})
_FIRST_ERROR_STATUS = 400
_LANE: Lane = "provider"


class BatchWire:
    """The codec of one model's lines.

    Args:
        model: The model's table.
        native: DSPy's engine, which routes to the provider.
        transport: The transport of live calls, whose address and proxy batches share.
        pricing: The model's prices.
    """

    def __init__(self, model: Model, native: LM15Engine, transport: ProviderTransport, pricing: Pricing) -> None:
        self._model = model
        self._native = native
        self._transport = transport
        self._pricing = pricing

    def access(self) -> ProviderAccess:
        """Return the access to the provider, with credentials as of now: some expire.

        Raises:
            LM15Error: If the provider's credentials cannot be read.
        """
        provider, routed = self._native._target(batch_entry_request(self._model.model))  # noqa: SLF001 - as below
        live = provider.build_request(routed, stream=False)
        definition = lookup(provider.provider)
        return ProviderAccess(
            dialect=definition.dialect if definition else "",
            base_url=provider.base_url.rstrip("/"),
            headers=tuple((name, value) for name, value in live.headers if name.lower() not in _OF_A_BODY),
            query=self._transport.query,
            proxy=self._transport.route_proxy,
            timeout_seconds=self._model.timeout_seconds,
            model=routed.model,
            setting=f"models.{self._model.name}",
        )

    def line_body(self, request: lm15.Request) -> bytes | None:
        """Return the body of a request's line as JSON; None if it can only be made live.

        That is so where DSPy itself must stop the reply at a sequence, by closing the connection.

        Raises:
            LM15Error: If the provider's interface cannot carry the request, as live.
        """
        provider, routed = self._native._target(request)  # noqa: SLF001 - DSPy has no public way to the wire body
        with collecting(provider.adaptations, provider=provider.provider) as scope:
            wire = provider.build_request(routed, stream=False)
        if _client_side_stop(scope.records):
            return None
        body = json.loads(wire.body)
        for name in _LIVE_ONLY:
            body.pop(name, None)
        return json.dumps(body, separators=(",", ":")).encode()  # ASCII: half of a surrogate pair is kept

    def answer(self, status: int, body: dict[str, Any]) -> tuple[CallReply, bytes | None]:
        """Read the result of a line; return it at the batch price and in a form that can be loaded again.

        Args:
            status: The HTTP status that the live interface would have had.
            body: Its body.

        Raises:
            Exception: The error of a live call with this reply; see ``classify``.
        """
        provider, request = self._native._target(batch_entry_request(self._model.model))  # noqa: SLF001 - as above
        wire = process_secrets().scrub_reply(json.dumps(body).encode())
        stated = find_stated_error(wire) if status < _FIRST_ERROR_STATUS else None
        if stated is not None or status >= _FIRST_ERROR_STATUS:
            shown = wire if stated is None else stated.body
            error = provider.normalize_error(status if stated is None else stated.status, shown.decode())
            attach_bill(error, wire)
            raise error
        try:
            response = provider.parse_response(request, _http(wire))
            return self._reply_of(response), dump(response)
        except Exception as error:
            readable = mended(wire)
            if readable is None:
                attach_bill(error, wire)
                raise
            response = provider.parse_response(request, _http(readable))
            return self._reply_of(response), dump_what_is_unusual(response)

    def classify(self, error: Exception) -> Failure:
        """Classify an exception of ``answer`` as that of a live call, with its bill if the reply states a usage."""
        failure = classify(error, was_sent=True)
        billed = billed_reply(error)
        if billed is None:
            return failure
        reply = self._reply_of(response_of(billed, self._model.model))
        return replace(
            failure,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            cost_usd=reply.cost_usd,
        )

    def _reply_of(self, response: lm15.Response) -> CallReply:
        tokens = self._pricing.tokens_of(response)
        priced = self._pricing.cost_usd(None, response, tokens, lane=_LANE)
        cost_usd = self._pricing.with_report(priced, response)
        if tokens is None:
            return CallReply(response, None, None, cost_usd)
        return CallReply(response, tokens.prompt, tokens.completion, cost_usd)


def _http(body: bytes) -> HttpResponse:
    return HttpResponse(200, "OK", [("content-type", "application/json")], body)


def check_batch_protocol(model: Model, provider: str) -> None:
    """Check that a model's batch interface takes the bodies of its live calls.

    Args:
        model: The model's table.
        provider: DSPy's name of its provider.

    Raises:
        ConfigurationError: If it does not.
    """
    definition = lookup(provider)
    if model.batch_protocol is None or definition is None or BATCH_DIALECTS[model.batch_protocol] == definition.dialect:
        return
    fitting = " or ".join(f'"{name}"' for name in (*_fitting(definition.dialect), "off"))
    raise ConfigurationError(
        f'models.{model.name}.batch: "{model.batch}" is no batch interface for {model.model}; state {fitting}, or '
        "leave it out"
    )


def _fitting(dialect: str) -> list[str]:
    return [name for name, other in BATCH_DIALECTS.items() if other == dialect]
