"""A prediction as its caller sees it, and its JSON form in the result backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from dspyq.config.codec import decode_outputs
from dspyq.config.settings import get_settings
from dspyq.errors import NotAPrediction

CacheLevel = Literal["memory", "redis", "joined"]
#: Marks a result as ours, and the version of its form.
_MARK = "dspyq"
_FORM = 1


@dataclass(frozen=True)
class Usage:
    """Tokens of every LM call of a prediction, as the provider counted them.

    Attributes:
        prompt_tokens: Tokens sent.
        completion_tokens: Tokens generated.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Tokens sent and generated."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Metadata:
    """How a prediction came about.

    Attributes:
        program: The program's name.
        variant: The variant it was assigned to.
        model: The model as the provider names it.
        input_hash: What identifies the question: program, variant fingerprint and inputs.
        request_id: The caller's own id of this request.
        timestamp: When the answer was computed, seconds since 1970.
        usage: Tokens of the run that computed it.
        cost_usd: What this request cost: 0 for an answer from the cache or another's run; None where unknown.
        duration_seconds: How long the program ran.
        cache_level: Where a cached answer came from; None if this request computed it.
        fallback: Where an answer came from that is not the variant's own, for that could not be had: ``outputs``, or
            the name of another variant; else None.
    """

    program: str
    variant: str
    model: str
    input_hash: str
    request_id: str
    timestamp: float
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = 0.0
    duration_seconds: float = 0.0
    cache_level: CacheLevel | None = None
    fallback: str | None = None

    @property
    def queue(self) -> str:
        """The queue of the variant."""
        return f"{self.program}.{self.variant}"

    @property
    def cached(self) -> bool:
        """Whether this request was answered without a run of its own."""
        return self.cache_level is not None

    def seen_by(self, asker: Asker) -> Metadata:
        """Return what another caller of the same question sees: its own request, at no cost."""
        return Metadata(
            program=self.program,
            variant=asker.variant,
            model=self.model,
            input_hash=self.input_hash,
            request_id=asker.request_id,
            timestamp=self.timestamp,
            usage=self.usage,
            cost_usd=0.0,
            duration_seconds=self.duration_seconds,
            cache_level=asker.cache_level,
            fallback=self.fallback,
        )


class Asker(NamedTuple):
    """A caller that was answered without a run of its own.

    Attributes:
        variant: The variant it was assigned to; another one of the same fingerprint may have answered.
        request_id: Its own id of the request.
        cache_level: Where its answer came from.
    """

    variant: str
    request_id: str
    cache_level: CacheLevel


@dataclass(frozen=True)
class Prediction:
    """A program's answer: each output is an attribute, ``metadata`` says how it came about.

    Attributes:
        outputs: The outputs by name, of the types the signature states.
        metadata: Where the answer came from and what it cost.
    """

    outputs: dict[str, Any]
    metadata: Metadata

    def __getattr__(self, name: str) -> Any:
        """Return an output."""
        if name.startswith("__") or name == "outputs":
            raise AttributeError(name)
        try:
            return self.outputs[name]
        except KeyError:
            known = ", ".join(self.outputs)
            raise AttributeError(f"the prediction has no output {name!r}; it has {known}") from None

    def __getitem__(self, name: str) -> Any:
        """Return an output, also one named like an attribute of this class."""
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the outputs."""
        return iter(self.outputs)


def is_prediction(result: Any) -> bool:
    """Whether a result in the backend is a prediction of ours."""
    return isinstance(result, dict) and result.get(_MARK) == _FORM


def to_json(outputs: Mapping[str, Any], metadata: Metadata) -> dict[str, Any]:
    """Return the JSON form.

    Args:
        outputs: Outputs as JSON values, as the codec encoded them.
        metadata: Where they came from.
    """
    usage = metadata.usage
    return {
        _MARK: _FORM,
        "outputs": dict(outputs),
        "metadata": {
            "program": metadata.program,
            "variant": metadata.variant,
            "model": metadata.model,
            "input_hash": metadata.input_hash,
            "request_id": metadata.request_id,
            "timestamp": metadata.timestamp,
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            },
            "cost_usd": metadata.cost_usd,
            "duration_seconds": metadata.duration_seconds,
            "cached": metadata.cached,
            "cache_level": metadata.cache_level,
            "fallback": metadata.fallback,
        },
    }


def from_json(result: Any, asker: Asker | None = None) -> Prediction:
    """Return the prediction that a result holds, its outputs as the types the program's signature states.

    Args:
        result: The JSON form.
        asker: Who sees it, if not the caller that had it computed.

    Raises:
        NotAPrediction: If the result is none of ours, or of a later version.
    """
    if not is_prediction(result):
        raise NotAPrediction("the result under this task id was not written by a dspyq worker of this version")
    metadata = metadata_from_json(result["metadata"], asker)
    program = get_settings().programs.get(metadata.program)
    outputs = decode_outputs(program, result["outputs"]) if program else result["outputs"]
    return Prediction(outputs, metadata)


def metadata_from_json(stored: Mapping[str, Any], asker: Asker | None = None) -> Metadata:
    """Return metadata from its JSON form, as whoever was answered without a run of its own sees it."""
    usage = stored["usage"]
    variant, request_id, cache_level = asker or (stored["variant"], stored["request_id"], stored["cache_level"])
    return Metadata(
        program=stored["program"],
        variant=variant,
        model=stored["model"],
        input_hash=stored["input_hash"],
        request_id=request_id,
        timestamp=stored["timestamp"],
        usage=Usage(usage["prompt_tokens"], usage["completion_tokens"]),
        cost_usd=0.0 if asker else stored["cost_usd"],
        duration_seconds=stored["duration_seconds"],
        cache_level=cache_level,
        fallback=stored.get("fallback"),
    )
