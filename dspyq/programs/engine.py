"""An engine of DSPy through which each provider call passes exactly once.

It must not be used across a fork: parent and child would read each other's replies from one socket.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Self

import anyio.to_thread  # comes with DSPy
import dspy
from dspy import lm15
from dspy.clients.engines.lm15_engine import LM15Engine

from dspyq.config.models import Model
from dspyq.core.events import Event
from dspyq.errors import ConfigurationError
from dspyq.guards import metrics
from dspyq.guards.ledger import Ledger
from dspyq.guards.model import Guard, Guards
from dspyq.guards.unguarded import Unguarded
from dspyq.programs import dspy_memo
from dspyq.programs.batch_wire import BatchWire, check_batch_protocol
from dspyq.programs.deadline import TOLERANCE_SECONDS, deadline
from dspyq.programs.endpoint import ProviderTransport, read_key
from dspyq.programs.failures import failed_on_the_way, is_local, not_sent
from dspyq.programs.prices import Pricing
from dspyq.programs.provider_call import ProviderCall, dump, dump_what_is_unusual
from dspyq.programs.repair import keeping_reply
from dspyq.programs.run_spans import ChatSpans
from dspyq.programs.running_ledger import ledger_of_call
from dspyq.programs.stated_errors import attach_bill
from dspyq.programs.streamed_reply import exchange
from dspyq.tracing.tracing import process_tracing

logger = logging.getLogger("dspyq.guards")

#: Parameters that DSPy consumes itself; they are not part of a request.
_DSPY_PARAMETERS = frozenset({"n", "num_generations", "rollout_id", "prompt_cache"})


class Engine:
    """DSPy's native engine behind the guards; each attempt is bounded by a wall clock.

    The ``supports_*`` attributes and ``supported_params`` are read by DSPy's adapters.
    """

    def __init__(self, model: Model, guards: Guards | None = None) -> None:
        """Set up the route to the provider, without network access.

        ``model`` is the model's table, ``provider`` DSPy's name of its provider, ``pricing`` its prices,
        ``batch_wire`` the codec of its batch interface.

        Args:
            model: The model's table.
            guards: The guards of calls; none where left out.

        Raises:
            ConfigurationError: With every fault of the model's table that shows before a call.
        """
        self.model = model
        self._route = _resolve(model)
        self.provider: str = self._route.provider
        check_batch_protocol(model, self.provider)
        self.pricing = Pricing(model, self._route)
        self._guard: Guard = guards.of_model(model) if guards else Unguarded(model)
        self._transport = ProviderTransport(model, self._route)
        key = read_key(model, self._route)
        self._native = LM15Engine(
            lm15.RouterConfig(
                api_keys={self.provider: key} if key else None,
                base_urls={self.provider: self._transport.base} if self._transport.base else None,
                transport=self._transport,
            )
        )
        dspy_memo.cache_routes(self._native)
        self.batch_wire = BatchWire(model, self._native, self._transport, self.pricing)
        if guards is not None:
            guards.line_readers.setdefault(model.name, self.batch_wire)
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
        """Return the engine itself, so that copies made by modules such as BestOfN share its connections."""
        return self

    def complete(self, request: lm15.Request) -> lm15.Response:
        """Answer a request through the guards."""
        ledger = ledger_of_call()
        ledger.check_open()
        response: lm15.Response = self._guard.answer(ledger, ProviderCall(self, request, self._spans(request, ledger)))
        ledger.note_finish(response.finish_reason)
        return response

    def attempt(self, request: lm15.Request, clock: deadline) -> tuple[lm15.Response, bytes | None]:
        """Call the provider once; return its reply and, if possible, the reply in a form that can be loaded again.

        A reply is paid for, so an unreadable one is repaired and then billed by the tokens it states.

        Args:
            request: The request.
            clock: The wall clock of the attempt.
        """
        response = None
        with keeping_reply() as kept:
            try:
                response = self._exchange(request, clock)
                return response, dump(response)
            except (lm15.TransportError, lm15.TimeoutError):
                raise
            except Exception as error:
                if isinstance(error, lm15.StreamAssemblyError) and kept.is_no_stream():
                    response = self._exchange(request, clock, is_kept=True)
                    return response, dump(response)
                if kept.mend():
                    metrics.MENDED_REPLIES.labels(self.model.name).inc()
                    logger.warning(Event("reply_mended", model=self.model.name, error=type(error).__name__))
                    response = self._exchange(request, clock, is_kept=True)
                elif isinstance(error, lm15.StreamAssemblyError):
                    raise lm15.TransportError("the stream ended before the reply did") from error
                elif response is None:
                    attach_bill(error, kept.body_of_success())
                    raise
                return response, dump_what_is_unusual(response)

    def line_body(self, request: lm15.Request) -> bytes | None:
        """Return a request as a line of the provider's batch interface holds it; None if none can."""
        return self.batch_wire.line_body(request)

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
        return ChatSpans(tracing, self.model, self.provider, requested, ledger.trace_context)

    def find_parameter_faults(self, parameters: dict[str, Any]) -> Iterator[str]:
        """Yield faults of parameters that the provider's API cannot carry, without network access.

        Args:
            parameters: The request parameters of the LM that uses this engine.
        """
        body = {name: value for name, value in parameters.items() if value is not None and name not in _DSPY_PARAMETERS}
        messages = [{"role": "user", "content": "?"}]
        try:
            self._native.plan(lm15.request_from_openai_chat({"model": self.model.model, "messages": messages, **body}))
        except (lm15.LM15Error, TypeError, ValueError) as error:
            yield f"{self.model.setting('parameters')}: {error}"

    def find_price_faults(self) -> Iterator[str]:
        """Yield a fault if calls have no known price."""
        if not self.pricing.is_known:
            yield (
                f"models.{self.model.name}.input_usd_per_million_tokens: the price of {self.model.model} is not in "
                "DSPy's table; state it, and output_usd_per_million_tokens (0 is a price)"
            )

    def close(self) -> None:
        """Close the connections. Not to be used again."""
        self._native.close()
        self._transport.close()

    def _exchange(self, request: lm15.Request, clock: deadline, *, is_kept: bool = False) -> lm15.Response:
        """Send a request, or read the kept reply to it."""
        with clock:
            try:
                return self._native.complete(request) if is_kept else exchange(self._native, request, clock)
            except lm15.ProviderError as error:
                self._transport.mark_billed(error)
                raise
            except lm15.TransportError as error:
                if clock.remaining_seconds() <= TOLERANCE_SECONDS:
                    raise lm15.TimeoutError(
                        f"no answer within {clock.seconds:g} s (models.{self.model.name}.timeout_seconds)",
                        provider=self.provider,
                    ) from error
                if clock.has_written or failed_on_the_way(error):
                    raise
                raise not_sent(self.model.name, error) from None
            except lm15.LM15Error:
                raise
            except Exception as error:
                if clock.has_written or is_local(error):
                    raise
                raise not_sent(self.model.name, error) from None


class AsyncEngine:
    """The same engine for async programs: it runs each call in a thread, so that there is one path to the provider."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def complete(self, request: lm15.Request) -> lm15.Response:
        """Make one attempt."""
        # A limiter for each call does not limit; asyncio's default would allow six attempts at once on two cores.
        return await anyio.to_thread.run_sync(
            self._engine.complete, request, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
        )


def _resolve(model: Model) -> lm15.Resolution:
    try:
        return LM15Engine(lm15.RouterConfig(env={})).resolve(model.model)
    except lm15.LM15Error as error:
        raise ConfigurationError(f"models.{model.name}.model: {error}") from error
