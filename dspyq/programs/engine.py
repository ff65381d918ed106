"""The language models of the configuration, with an engine that sees each provider call of every module exactly once.

An LM must not be used across a fork: parent and child would read each other's replies from one socket.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Self
from urllib.request import getproxies

import anyio.to_thread  # comes with DSPy
import dspy
import orjson
from blake3 import blake3
from dspy import lm15
from dspy._vendor.lm15.serde import request_to_dict, response_from_dict, response_to_dict
from dspy._vendor.lm15.transports import ConnectTimeout, StdlibTransport
from dspy.clients.call_result import usage_dict
from dspy.clients.engines.lm15_engine import LM15Engine

from dspyq.config.models import Model
from dspyq.core.events import NO_CONTEXT
from dspyq.errors import ConfigurationError
from dspyq.guards.call import Reply
from dspyq.guards.ledger import Ledger, UnaccountedCall
from dspyq.guards.model import Guard, Guards, Unguarded
from dspyq.programs import dspy_memo as reuse
from dspyq.programs.deadline import TOLERANCE_SECONDS, DeadlineSocket, deadline, remaining_seconds
from dspyq.programs.failures import Failure, classify, code_of
from dspyq.programs.prices import Pricing
from dspyq.programs.run_spans import ChatSpans
from dspyq.tracing.tracing import process_tracing

#: The setting of ``dspy.context`` that holds the running prediction's ledger. DSPy carries its settings into the
#: threads of ``dspy.Parallel``, ``asyncify`` and async calls; a context variable of our own gets lost in the first.
LEDGER_SETTING = "dspyq_ledger"

#: Parts of a request that cost more than their text; in a text itself the quotes would be escaped.
_COSTS_MORE_THAN_TEXT = re.compile(rb'"type":"(?:image|audio|video|document|binary|builtin)"')
#: Local servers ask for some key and take any.
_NO_KEY = "none"
#: Threads bound the connections. A bound below theirs would have calls wait for one outside of their wall clock.
_MAX_CONNECTIONS = 65_536
#: A usage beyond this, or below zero, is nonsense, and says nothing of the call's cost.
_MOST_TOKENS = 10**9
#: Handled by DSPy before a request is made of the parameters.
_DSPY_PARAMETERS = frozenset({"n", "num_generations", "rollout_id", "prompt_cache"})


class Engine:
    """DSPy's native engine behind the guards; each attempt is bounded by a wall clock.

    The ``supports_*`` attributes and ``supported_params`` are read by DSPy's adapters.
    """

    def __init__(self, model: Model, guards: Guards | None = None) -> None:
        """Set up the route to the provider, without network access.

        Args:
            model: The model's table.
            guards: What may refuse a call; nothing where left out.

        Raises:
            ConfigurationError: With every fault of the model's table that shows before a call.
        """
        self._model = model
        self._route = _resolve(model)
        self.pricing = Pricing(model, self._route)
        self._guard: Guard = guards.of_model(model, self.pricing.dearest()) if guards else Unguarded(model)
        self._transport = _Transport(
            read_timeout=model.timeout_seconds,
            write_timeout=model.timeout_seconds,
            max_connections=_MAX_CONNECTIONS,
            trust_env=bool(getproxies()),  # else it would read the whole environment for each call
        )
        key = _read_key(model, self._route)
        self._native = LM15Engine(
            lm15.RouterConfig(
                api_keys={self._route.provider: key} if key else None,
                base_urls={self._route.provider: model.api_base} if model.api_base else None,
                transport=self._transport,
            )
        )
        reuse.routes(self._native)
        known = dspy.LM(model.model, engine="lm15", cache=False)
        self.supports_function_calling: bool = known.supports_function_calling
        self.supports_reasoning: bool = known.supports_reasoning
        self.supports_response_schema: bool = known.supports_response_schema
        self.supported_params: set[str] = known.supported_params
        if model.structured_outputs is not None:
            self.supports_response_schema = model.structured_outputs
        if model.structured_outputs:
            self.supported_params |= {"response_format"}

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        """Return the engine itself: modules that copy what they run, as BestOfN does, go on using its connections."""
        return self

    def complete(self, request: lm15.Request) -> lm15.Response:
        """Answer a request, by way of the guards."""
        ledger = _running_ledger()
        ledger.check_open()
        response: lm15.Response = self._guard.answer(ledger, ProviderCall(self, request, self._spans(request, ledger)))
        return response

    def attempt(self, request: lm15.Request, seconds: float) -> Reply:
        """Call the provider once.

        Args:
            request: What it is asked.
            seconds: The wall clock of the attempt.
        """
        response = self._exchange(request, seconds)
        usage = usage_dict(response, self._route.provider)
        tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not all(count is None or 0 <= count <= _MOST_TOKENS for count in tokens):
            return Reply(response, None, None, None)
        return Reply(response, *tokens, self.pricing.cost_usd(request, response))

    def _spans(self, request: lm15.Request, ledger: Ledger) -> ChatSpans | None:
        tracing = process_tracing()
        if tracing is None:
            return None
        requested = {
            "gen_ai.request.model": self._route.model,
            "gen_ai.request.max_tokens": request.config.max_tokens,
            "gen_ai.request.temperature": request.config.temperature,
            "gen_ai.request.top_p": request.config.top_p,
        }
        return ChatSpans(tracing, self._model, self._route.provider, requested, ledger.trace_context)

    def find_parameter_faults(self, parameters: dict[str, Any]) -> Iterator[str]:
        """Say what the provider's interface cannot carry, without network access.

        Args:
            parameters: The request parameters of the LM that uses this engine.
        """
        body = {name: value for name, value in parameters.items() if value is not None and name not in _DSPY_PARAMETERS}
        messages = [{"role": "user", "content": "?"}]
        try:
            self._native.plan(lm15.request_from_openai_chat({"model": self._model.model, "messages": messages, **body}))
        except (lm15.LM15Error, TypeError, ValueError) as error:
            yield f"models.{self._model.name}.parameters: {error}"

    def find_price_faults(self) -> Iterator[str]:
        """Say whether a call would have no known price."""
        if not self.pricing.is_known:
            yield (
                f"models.{self._model.name}.input_usd_per_million_tokens: the price of {self._model.model} is not in "
                "DSPy's table; state it, and output_usd_per_million_tokens (0 is a price)"
            )

    def close(self) -> None:
        """Close the connections. Not to be used again."""
        self._native.close()
        self._transport.close()

    def _exchange(self, request: lm15.Request, seconds: float) -> lm15.Response:
        with deadline(seconds):
            try:
                return self._native.complete(request)
            except lm15.TransportError as error:
                if remaining_seconds() > TOLERANCE_SECONDS:
                    raise
                raise lm15.TimeoutError(
                    f"no answer within {seconds:g} s (models.{self._model.name}.timeout_seconds)",
                    provider=self._route.provider,
                ) from error


class ProviderCall:
    """A request on its way to the provider, as the guards see it: they know nothing of DSPy.

    Attributes:
        digest: What is asked for; equal for equal requests.
        wire_bytes: The bytes of its text, which bound the tokens of its prompt.
        max_completion_tokens: The most tokens of its reply; None where it sets no bound.
        is_text: Whether all of it is text.
    """

    def __init__(self, engine: Engine, request: lm15.Request, spans: ChatSpans | None = None) -> None:
        self._engine = engine
        self._request = request
        self._spans = spans
        stated = request_to_dict(request)
        wire = orjson.dumps(stated, default=str, option=orjson.OPT_SORT_KEYS)
        self.digest = blake3(wire).hexdigest(length=16)
        self.wire_bytes = len(wire)
        self.max_completion_tokens: int | None = request.config.max_tokens
        self.is_text = _COSTS_MORE_THAN_TEXT.search(wire) is None

    def attempt(self, seconds: float) -> Reply:
        """Call the provider once, for so many seconds at most."""
        if self._spans is None:
            return self._engine.attempt(self._request, seconds)
        return self._spans.attempt(lambda: self._engine.attempt(self._request, seconds), code_of)

    @staticmethod
    def classify(error: Exception) -> Failure:
        """Return what an exception of an attempt says."""
        return classify(error)

    @staticmethod
    def dump(response: lm15.Response) -> bytes:
        """Return a reply as it can be loaded again."""
        return orjson.dumps(response_to_dict(response), default=str)

    @staticmethod
    def load(reply: bytes) -> lm15.Response:
        """Return a reply that was paid for before."""
        return response_from_dict(orjson.loads(reply))


class AsyncEngine:
    """The same engine for programs that await: each attempt in a thread, so there is one way to the provider."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def complete(self, request: lm15.Request) -> lm15.Response:
        """Make one attempt."""
        # A limiter of its own limits nothing; asyncio's threads would let six attempts run at once on two cores.
        return await anyio.to_thread.run_sync(
            self._engine.complete, request, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
        )


class _Transport(StdlibTransport):  # type: ignore[misc]  # dspy ships no types
    """DSPy's transport, whose connections end with the deadline of the call that uses them."""

    def _open(self, parsed: Any, *, connect_timeout: float, **route: Any) -> Any:
        seconds = remaining_seconds()
        if seconds <= 0:
            raise ConnectTimeout("the deadline has passed")
        connection = super()._open(parsed, connect_timeout=min(connect_timeout, seconds), **route)
        connection.sock = DeadlineSocket(connection.sock)
        return connection


def build_lm(model: Model, guards: Guards | None = None) -> dspy.LM:
    """Return the LM of a model's table.

    Args:
        model: The table.
        guards: What may refuse its calls; nothing where left out.

    Raises:
        ConfigurationError: With every fault of the table that shows before a call.
    """
    taken = sorted(model.parameters.keys() & inspect.signature(dspy.LM.__init__).parameters.keys())
    if taken:
        raise ConfigurationError(
            f"models.{model.name}.parameters: {', '.join(taken)} cannot be set here; these are not request parameters"
        )
    engine = Engine(model, guards)
    try:
        lm = dspy.LM(
            model.model,
            engine=engine,
            async_engine=AsyncEngine(engine),
            cache=False,
            num_retries=0,
            max_tokens=model.max_tokens,
            temperature=model.temperature,
            **model.parameters,
        )
    except (dspy.LMError, TypeError, ValueError) as error:
        raise ConfigurationError(f"models.{model.name}: {error}") from error
    faults = [*engine.find_parameter_faults(lm.kwargs), *engine.find_price_faults()]
    if faults:
        raise ConfigurationError(faults)
    return lm


def running_log_context() -> Mapping[str, Any]:
    """Return what lines of this thread say besides, where DSPy has carried its settings into it."""
    ledger: Ledger | None = dspy.settings.get(LEDGER_SETTING)
    return NO_CONTEXT if ledger is None else ledger.log_context


def _running_ledger() -> Ledger:
    ledger: Ledger | None = dspy.settings.get(LEDGER_SETTING)
    if ledger is None:
        raise UnaccountedCall(
            "a model was called outside of its prediction; start threads with dspy.Parallel, or run what they do in "
            "contextvars.copy_context()"
        )
    return ledger


def _resolve(model: Model) -> lm15.Resolution:
    try:
        return LM15Engine(lm15.RouterConfig(env={})).resolve(model.model)
    except lm15.LM15Error as error:
        raise ConfigurationError(f"models.{model.name}.model: {error}") from error


def _read_key(model: Model, route: lm15.Resolution) -> str | None:
    """The API key; None where the provider takes the machine's own identity instead, as clouds do."""
    setting = f"models.{model.name}.api_key_env"
    if model.api_key_env is not None:
        key = os.environ.get(model.api_key_env)
        if not key:
            raise ConfigurationError(f"{setting}: the environment variable {model.api_key_env} is not set")
        return key
    if route.credential_policy != "key":
        return None
    if model.api_base is None and route.placeholder_key is None:
        raise ConfigurationError(
            f"{setting}: {route.provider} needs a key; name the environment variable that holds it, "
            f"or set models.{model.name}.api_base to an endpoint that needs none"
        )
    return _NO_KEY
