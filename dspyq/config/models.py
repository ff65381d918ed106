"""Model endpoints, as the configuration file states them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    model_validator,
)

from dspyq.config.forms import form
from dspyq.core.address import check_address, check_variable

#: Money is counted in whole nano-dollars, which a Redis script keeps exact up to 2^53.
LARGEST_LIMIT_USD = 9_000_000
#: More than published rules make of an image: OpenAI's scale it down to eight tiles at most, 48,169 for gpt-4o-mini;
#: Anthropic's to 4,784. Gemini's has no most: 258 for each tile of 768 pixels, so that this is 193 tiles.
MOST_IMAGE_TOKENS = 50_000
Usd = Annotated[float, Field(ge=0, le=LARGEST_LIMIT_USD)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, le=2)]
#: As providers name their tiers, in lower case.
ServiceTier = Annotated[str, Field(pattern=form(r"^[a-z][a-z0-9_-]*$", "use small letters, digits, - and _, as flex"))]
_CACHE_PRICES = (
    "cached_input_usd_per_million_tokens",
    "cache_write_usd_per_million_tokens",
    "cache_write_1h_usd_per_million_tokens",
)
#: Batch interfaces of providers, as ``dspyq.programs`` speaks them.
BatchProtocol = Literal["openai", "anthropic", "gemini"]
#: Providers, as DSPy names them, whose own endpoint has one.
_BATCH_PROTOCOLS: Mapping[str, BatchProtocol] = {"openai": "openai", "anthropic": "anthropic", "gemini": "gemini"}
#: Names become parts of queue names and Redis keys.
Name = Annotated[
    str,
    Field(
        pattern=form(
            r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", "use up to 64 letters, digits, - and _, with a letter or digit first"
        )
    ),
]


class Table(BaseModel):
    """A table of the configuration file: frozen, without unknown keys."""

    # Built when it is first used: importing a producer must cost little.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)


class Model(Table):
    """A model endpoint, ``[models.<name>]``.

    Attributes:
        name: The table's name.
        model: Provider and model as DSPy writes them, ``openai/gpt-4o-mini``.
        api_base: The endpoint's URL; the provider's own where left out.
        api_key_env: The environment variable that holds the key. Only workers read it.
        max_tokens: The most tokens of one reply.
        temperature: Sampling temperature; the provider's default where left out.
        parameters: Further request parameters, passed as they are.
        structured_outputs: Whether to send a JSON schema of the outputs to an endpoint that DSPy does not know to
            take one; left out, DSPy's own knowledge decides.
        timeout_seconds: The wall clock of one attempt.
        input_usd_per_million_tokens: Price of prompt tokens; from the bundled table where left out.
        output_usd_per_million_tokens: Price of completion tokens; from the bundled table where left out.
        cached_input_usd_per_million_tokens: Price of prompt tokens read from a cache, beside stated prices; the input's
            where left out.
        cache_write_usd_per_million_tokens: Price of prompt tokens written to a cache, beside stated prices; the input's
            where left out.
        cache_write_1h_usd_per_million_tokens: Price of those written for an hour; the other writes' where left out.
        service_tier_price_factors: What all prices are multiplied by at a service tier, as in ``{flex = 0.5}``; a tier
            that is not named has the bundled table's price, or else the standard one.
        prompt_overhead_tokens: What the provider may count beyond the text of a request, at most; a budget's bound
            of a call's cost includes it.
        image_tokens: The most tokens that an image is counted as, for the bound of a call's cost.
        audio_tokens: The same of an audio part; left out, such a call has no bound, and none is made under a limit.
        file_tokens: The same of a file.
        batch: The provider's batch interface, for batches with ``--lane provider``; ``off`` for none. Left out, that of
            the provider in ``model``, and none where there is an ``api_base``.
        batch_discount: The part of a price that the batch interface saves; left out, its prices are those of DSPy's
            table, or half the live ones for a model without any there.
        batch_max_lines: The most lines of one shipment, which are a call each; the provider's own limit caps it.
        batch_max_bytes: The most bytes of one shipment.
        batch_enqueued_tokens: The most prompt tokens that the account may have waiting at the provider; left out, it is
            learned from refusals.
        batch_linger_seconds: How long a shipment waits for further lines since the latest came.
        batch_max_attempts: How often a call is shipped that the provider does not execute; then it is made live.
        requests_per_second: The most requests of all workers together; no limit where left out.
        burst_requests: How many of them may be sent at once.
        tokens_per_minute: The most tokens, prompt and completion, of all workers together, as an average over a minute;
            no limit where left out.
        failure_threshold: As of ``[breaker]``, for this model.
        success_threshold: As of ``[breaker]``, for this model.
        reset_timeout_seconds: As of ``[breaker]``, for this model.
        max_reset_timeout_seconds: As of ``[breaker]``, for this model.
    """

    name: str
    model: Annotated[str, Field(pattern=form(r"^[^/\s]+/\S+$", "name the provider too, as openai/gpt-4o-mini"))]
    api_base: Annotated[str, AfterValidator(check_address)] | None = None
    api_key_env: Annotated[str, AfterValidator(check_variable)] | None = None
    max_tokens: PositiveInt = 1024
    temperature: Temperature | None = None
    parameters: dict[str, JsonValue] = {}
    structured_outputs: bool | None = None
    timeout_seconds: PositiveFloat = 60.0
    input_usd_per_million_tokens: Price | None = None
    output_usd_per_million_tokens: Price | None = None
    cached_input_usd_per_million_tokens: Price | None = None
    cache_write_usd_per_million_tokens: Price | None = None
    cache_write_1h_usd_per_million_tokens: Price | None = None
    service_tier_price_factors: dict[ServiceTier, Price] = {}
    prompt_overhead_tokens: Annotated[int, Field(ge=0)] = 256
    image_tokens: PositiveInt = MOST_IMAGE_TOKENS
    audio_tokens: PositiveInt | None = None
    file_tokens: PositiveInt | None = None
    batch: Literal["openai", "anthropic", "gemini", "off"] | None = None
    batch_discount: Annotated[float, Field(ge=0, lt=1)] | None = None
    batch_max_lines: PositiveInt = 50_000
    batch_max_bytes: PositiveInt = 190_000_000
    batch_enqueued_tokens: PositiveInt | None = None
    batch_linger_seconds: Annotated[float, Field(ge=0)] = 120.0
    batch_max_attempts: PositiveInt = 3
    requests_per_second: PositiveFloat | None = None
    burst_requests: PositiveInt = 1
    tokens_per_minute: PositiveInt | None = None
    failure_threshold: PositiveInt | None = None
    success_threshold: PositiveInt | None = None
    reset_timeout_seconds: PositiveFloat | None = None
    max_reset_timeout_seconds: PositiveFloat | None = None
    #: The table of a variant that replaces settings, and the settings that it replaces.
    _replaced_by: tuple[str, frozenset[str]] = PrivateAttr(default=("", frozenset()))

    @model_validator(mode="after")
    def _both_prices_or_none(self) -> Model:
        if (self.input_usd_per_million_tokens is None) != (self.output_usd_per_million_tokens is None):
            raise ValueError("state both input_usd_per_million_tokens and output_usd_per_million_tokens, or neither")
        if self.input_usd_per_million_tokens is None:
            for name in _CACHE_PRICES:
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} stands beside input_usd_per_million_tokens alone: state that too")
        return self

    @property
    def batch_protocol(self) -> BatchProtocol | None:
        """The provider's batch interface; None for a model without a lane."""
        if self.batch is not None:
            return None if self.batch == "off" else self.batch
        return _BATCH_PROTOCOLS.get(self.model.partition("/")[0]) if self.api_base is None else None

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that answers depend on; price, key and timeout are not among them."""
        return {
            "model": self.model,
            "api_base": self.api_base,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "parameters": self.parameters,
            "structured_outputs": self.structured_outputs,
        }

    def replaced(self, changes: Mapping[str, Any], table: str) -> Model:
        """Return the model with some settings replaced; breaker, rate limit and prices stay those of its own table.

        Args:
            changes: The settings, checked; ``parameters`` are added to its own, one by one.
            table: The table that states them.
        """
        parameters = {"parameters": {**self.parameters, **changes["parameters"]}} if "parameters" in changes else {}
        model = self.model_copy(update={**changes, **parameters})
        model._replaced_by = (table, frozenset(changes))  # noqa: SLF001 - its own class's
        return model

    def setting(self, key: str) -> str:
        """Return the place in the file that states a setting of it."""
        table, keys = self._replaced_by
        return f"{table}.{key}" if key in keys else f"models.{self.name}.{key}"

    @property
    def table(self) -> str:
        """The table that states it: a variant's, if that replaces anything."""
        return self._replaced_by[0] or f"models.{self.name}"

    @property
    def distinction(self) -> tuple[str, str]:
        """Its table, and all that answers depend on: what is equal here is one model."""
        return self.name, json.dumps(self.identity, sort_keys=True)
