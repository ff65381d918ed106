"""What is served: models, programs and their variants, as the configuration file states them.

All are frozen. What identifies an answer (a variant's fingerprint) comes from configuration alone, so a producer that
has no DSPy installed computes the same as its workers.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from blake3 import blake3
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from dspyq.config.signature import Signature, parse_signature

#: Prompts and parsing are DSPy's, so its version is part of what an answer depends on. Producers have no DSPy to ask;
#: workers refuse to start on another version.
DSPY_VERSION = "3.4.1"

_IMPORT_PATH = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"
_ADAPTER = rf"^(Chat|JSON|XML)Adapter$|{_IMPORT_PATH}"
#: Money is counted in whole nano-dollars, which a Redis script keeps exact up to 2^53.
LARGEST_LIMIT_USD = 9_000_000
ImportPath = Annotated[str, Field(pattern=_IMPORT_PATH)]
Usd = Annotated[float, Field(ge=0, le=LARGEST_LIMIT_USD)]
#: Names become parts of queue names and Redis keys.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class Table(BaseModel):
    """A table of the configuration file: frozen, and no key that is not known."""

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
        prompt_overhead_tokens: What the provider may count beyond the text of a request, at most; a budget's bound
            of a call's cost includes it.
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
    model: Annotated[str, Field(pattern=r"^[^/\s]+/\S+$")]
    api_base: Annotated[str, Field(pattern=r"^https?://")] | None = None
    api_key_env: str | None = None
    max_tokens: PositiveInt = 1024
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    parameters: dict[str, JsonValue] = {}
    structured_outputs: bool | None = None
    timeout_seconds: PositiveFloat = 60.0
    input_usd_per_million_tokens: Annotated[float, Field(ge=0)] | None = None
    output_usd_per_million_tokens: Annotated[float, Field(ge=0)] | None = None
    prompt_overhead_tokens: Annotated[int, Field(ge=0)] = 256
    requests_per_second: PositiveFloat | None = None
    burst_requests: PositiveInt = 1
    tokens_per_minute: PositiveInt | None = None
    failure_threshold: PositiveInt | None = None
    success_threshold: PositiveInt | None = None
    reset_timeout_seconds: PositiveFloat | None = None
    max_reset_timeout_seconds: PositiveFloat | None = None

    @model_validator(mode="after")
    def _both_prices_or_none(self) -> Model:
        if (self.input_usd_per_million_tokens is None) != (self.output_usd_per_million_tokens is None):
            raise ValueError("state both input_usd_per_million_tokens and output_usd_per_million_tokens, or neither")
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer depends on: neither price, key nor timeout."""
        return {
            "model": self.model,
            "api_base": self.api_base,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "parameters": self.parameters,
            "structured_outputs": self.structured_outputs,
        }


class Variant(Table):
    """One side of an experiment, ``[programs.<program>.variants.<name>]``.

    Attributes:
        name: The table's name.
        queue: The Celery queue of its jobs, ``<program>.<variant>``.
        model: The model it runs on.
        weight: The share of units it gets, 0 to 1.
        daily_usd: The most its calls may cost in a day; no limit of its own where left out.
        monthly_usd: The most its calls may cost in a month; no limit of its own where left out.
    """

    name: str
    queue: str
    model: Model
    weight: Annotated[float, Field(ge=0, le=1)] = 1.0
    daily_usd: Usd | None = None
    monthly_usd: Usd | None = None


class Program(Table):
    """A DSPy program, ``[programs.<name>]``.

    Attributes:
        name: The table's name.
        signature_text: Its fields in DSPy's notation, ``signature`` in the file; stated for class programs too.
        instructions: What the model is told to do; DSPy's default where left out.
        module: The DSPy module that serves a signature.
        class_path: ``package.module:Class`` of a program of your own, ``class`` in the file.
        state: The JSON file ``program.save`` wrote, relative to the configuration file.
        state_sha256: The hash of that file.
        adapter: How prompts are written and replies parsed: a DSPy adapter or ``package.module:Class``.
        version: Change it when code changed what the program answers.
        salt: What units are hashed with; programs of one salt and weights split their units alike.
        cache_ttl_seconds: How long an answer is served from the cache; 0 serves none.
        max_input_bytes: The most bytes of one prediction's inputs, as JSON.
        deadline_seconds: The most a prediction may take while it runs, waiting in queues left out; no limit where left
            out. Model calls and waits end with it; a tool that hangs is not interrupted.
        when_unavailable: What becomes of a job that a breaker, a rate limit or a budget refuses: it waits, it fails, or
            it gets the fallback.
        fallback_outputs: The outputs of a fallback.
        fallback_variant: The variant whose answer is a fallback.
        daily_usd: The most its calls may cost in a day; no limit of its own where left out.
        monthly_usd: The most its calls may cost in a month; no limit of its own where left out.
        scorers: ``package.module:function`` of each function that scores its answers: it takes inputs and outputs, each
            a dict, and returns a number. Nobody waits for it, and its failures are counted alone.
        categorize: ``package.module:function`` that takes the inputs and returns the kind of a question, a short name;
            left out, that is ``short``, ``medium`` or ``long``.
        variants: The sides of the experiment, in the file's order; the first is the control.
    """

    model_config = ConfigDict(populate_by_name=True)

    name: str
    signature_text: Annotated[str, Field(alias="signature")]
    instructions: str | None = None
    module: Literal["Predict", "ChainOfThought"] = "Predict"
    class_path: Annotated[str | None, Field(alias="class", pattern=_IMPORT_PATH)] = None
    state: Path | None = None
    state_sha256: str | None = None
    adapter: Annotated[str, Field(pattern=_ADAPTER)] = "ChatAdapter"
    version: str = "1"
    salt: str = ""
    cache_ttl_seconds: Annotated[int, Field(ge=0)] = 86_400
    max_input_bytes: PositiveInt = 4 * 1024 * 1024
    deadline_seconds: PositiveFloat | None = None
    when_unavailable: Literal["wait", "fail", "fallback"] = "wait"
    fallback_outputs: dict[str, JsonValue] | None = None
    fallback_variant: str | None = None
    daily_usd: Usd | None = None
    monthly_usd: Usd | None = None
    scorers: tuple[ImportPath, ...] = ()
    categorize: ImportPath | None = None
    variants: Annotated[dict[Name, Variant], Field(min_length=1)]

    @field_validator("signature_text")
    @classmethod
    def _reads_as_a_signature(cls, text: str) -> str:
        parse_signature(text)
        return text

    @model_validator(mode="after")
    def _has_the_fallback_it_names(self) -> Program:
        stated = [name for name in ("fallback_outputs", "fallback_variant") if getattr(self, name) is not None]
        if self.when_unavailable == "fallback" and len(stated) != 1:
            raise ValueError('when_unavailable = "fallback" needs either fallback_outputs or fallback_variant')
        if self.when_unavailable != "fallback" and stated:
            raise ValueError(f'{stated[0]} is used with when_unavailable = "fallback" alone')
        if self.fallback_variant is not None and self.fallback_variant not in self.variants:
            raise ValueError(f"fallback_variant: there is no variant {self.fallback_variant!r}")
        if self.fallback_outputs is not None:
            expected = sorted(field.name for field in self.signature.outputs)
            if sorted(self.fallback_outputs) != expected:
                raise ValueError(f"fallback_outputs: state exactly the outputs {', '.join(expected)}")
        return self

    @functools.cached_property
    def signature(self) -> Signature:
        """The program's fields."""
        return parse_signature(self.signature_text)

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """Each variant's fingerprint, 32 hexadecimal digits: all that its answers depend on but the inputs."""
        shared = {
            "dspy": DSPY_VERSION,
            "signature": str(self.signature),
            "instructions": self.instructions,
            "module": self.class_path or self.module,
            "state": self.state_sha256,
            "adapter": self.adapter,
            "version": self.version,
        }
        return {name: _digest(shared | variant.model.identity) for name, variant in self.variants.items()}


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(identity: dict[str, Any]) -> str:
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()
    return blake3(canonical).hexdigest(length=16)
