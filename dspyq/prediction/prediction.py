"""A prediction as its caller sees it, and its JSON form in the result backend."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, cast

from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from dspyq.config.codec import decode_outputs, encode_outputs
from dspyq.config.settings import get_settings
from dspyq.errors import NotAPrediction

if TYPE_CHECKING:
    from dspyq.config.programs import Program

CacheLevel = Literal["memory", "redis", "joined"]
_Method = TypeVar("_Method", bound="Callable[..., Any]")
_Made = TypeVar("_Made", bound="Usage | Metadata | Prediction")
#: Marks a result as ours, and the version of its form.
_MARK = "dspyq"
_FORM = 1
#: The finish reason of a reply that was cut off.
TRUNCATED = "length"
#: Where metadata keep the function that makes their token.
_MAKER = "_make_exposure"


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


class _LaterToken:
    """The default of ``Metadata.exposure``: a token costs more than a hit in memory, and few are read.

    A value in the object itself comes first, and the one made here is kept there.
    """

    def __get__(self, metadata: Metadata | None, owner: type) -> str | None:
        if metadata is None:
            return None
        make: Callable[[], str | None] | None = vars(metadata).get(_MAKER)
        token = vars(metadata)["exposure"] = make and make()
        vars(metadata).pop(_MAKER, None)
        return token


@dataclass(frozen=True)
class Metadata:
    """Origin and cost of a prediction.

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
        finish_reason: Why its model calls ended: ``length`` if one was cut off, else that of the latest; None where
            none was made.
        exposure: The token for ``predict.feedback``, where an experiment counts this call; it is never stored.
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
    finish_reason: str | None = None
    exposure: str | None = _LaterToken()  # type: ignore[assignment]  # of a class it is None, as dataclasses read it

    def expose(self, make_token: Callable[[], str | None]) -> None:
        """Have the token of its call made when it is first read; for metadata that were just read or copied."""
        vars(self)[_MAKER] = make_token

    def __getstate__(self) -> dict[str, Any]:
        """Return its fields, with the token, for copies in other processes."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def is_truncated(self) -> bool:
        """True if a reply of the model was cut off at ``max_tokens``."""
        return self.finish_reason == TRUNCATED

    @property
    def queue(self) -> str:
        """The queue of the variant."""
        return f"{self.program}.{self.variant}"

    @property
    def cached(self) -> bool:
        """True if this request was answered without a run of its own."""
        return self.cache_level is not None

    def is_cacheable(self, program: Program) -> bool:
        """Return True if the cache may serve it: no fallback, no truncated answer unless the program allows that."""
        return self.fallback is None and (program.cache_truncated or not self.is_truncated)

    def seen_by(self, caller: AnsweredCaller) -> Metadata:
        """Return the metadata for another caller of the same question: its own request, at no cost."""
        return _made(
            Metadata,
            program=self.program,
            variant=caller.variant,
            model=self.model,
            input_hash=self.input_hash,
            request_id=caller.request_id,
            timestamp=self.timestamp,
            usage=self.usage,
            cost_usd=0.0,
            duration_seconds=self.duration_seconds,
            cache_level=caller.cache_level,
            fallback=self.fallback,
            finish_reason=self.finish_reason,
        )


class AnsweredCaller(NamedTuple):
    """A caller that was answered without a run of its own.

    Attributes:
        variant: The variant it was assigned to; another one of the same fingerprint may have answered.
        request_id: Its own id of the request.
        cache_level: Where its answer came from.
    """

    variant: str
    request_id: str
    cache_level: CacheLevel


class _OutputFirst:
    """A method that an output of its name hides, for outputs are often named ``items`` or ``values``."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, prediction: Prediction | None, owner: type) -> Any:
        if prediction is None:
            return self._method
        name = self._method.__name__
        return prediction.outputs[name] if name in prediction.outputs else self._method.__get__(prediction, owner)


def _output_first(method: _Method) -> _Method:
    return cast("_Method", _OutputFirst(method))


@dataclass(frozen=True)
class Prediction:
    """A program's answer: each output is an attribute; ``metadata`` holds its origin and cost.

    Attributes:
        outputs: The outputs by name, of the types the signature states.
        metadata: Where the answer came from and what it cost.
        _stored: The outputs as JSON values, as they came; None for a prediction that was not read from a result.
    """

    outputs: dict[str, Any]
    metadata: Metadata
    _stored: Mapping[str, JsonValue] | None = field(default=None, repr=False, compare=False)

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

    def keys(self) -> KeysView[str]:
        """Return the names of the outputs, which makes ``dict(prediction)`` the outputs."""
        return self.outputs.keys()

    @_output_first
    def items(self) -> ItemsView[str, Any]:
        """Return the names and values of the outputs; an output of this name comes first, as an attribute."""
        return self.outputs.items()

    @_output_first
    def values(self) -> ValuesView[Any]:
        """Return the values of the outputs; an output of this name comes first, as an attribute."""
        return self.outputs.values()

    @_output_first
    def get(self, name: str, default: Any = None) -> Any:
        """Return an output, or a default where there is none; an output of this name comes first, as an attribute."""
        return self.outputs.get(name, default)

    def to_dict(self) -> dict[str, JsonValue]:
        """Return the outputs as JSON values, for ``json.dumps``: as a batch writes them and readers of Redis see them.

        Changes to ``outputs`` are not in it.
        """
        plain: dict[str, JsonValue] = to_jsonable_python(
            self.outputs if self._stored is None else self._stored, bytes_mode="base64", fallback=str
        )
        return plain

    def __json__(self) -> dict[str, Any]:
        """Return its JSON form for a message, as when a chain passes it on."""
        program = _program_of(self.metadata)
        if program is None:
            return to_json(self.to_dict(), self.metadata)
        plain, exact = encode_outputs(program, self.outputs)
        return to_json(plain, self.metadata, exact)

    def __dir__(self) -> Iterable[str]:
        """Name the outputs among the attributes, for completion."""
        return {*super().__dir__(), *(name for name in self.outputs if name.isidentifier())}


def _made(class_: type[_Made], **fields: Any) -> _Made:
    """Return a frozen dataclass of these fields, which are all it has: its own way to set them takes thrice as long."""
    made = object.__new__(class_)
    object.__setattr__(made, "__dict__", fields)
    return made


def is_prediction(result: Any) -> bool:
    """Return True if a result in the backend is one of our predictions."""
    return isinstance(result, dict) and result.get(_MARK) == _FORM


def to_json(outputs: Mapping[str, Any], metadata: Metadata, exact: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON form.

    Args:
        outputs: Outputs as JSON values, as the codec encoded them.
        metadata: Where they came from.
        exact: The exact form of those outputs that have one.
    """
    return {
        _MARK: _FORM,
        "outputs": dict(outputs),
        "metadata": metadata_to_json(metadata),
        **({"exact": dict(exact)} if exact else {}),
    }


def metadata_to_json(metadata: Metadata) -> dict[str, Any]:
    """Return the JSON form of metadata; it has no token."""
    usage = metadata.usage
    return {
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
        "finish_reason": metadata.finish_reason,
        "is_truncated": metadata.is_truncated,
    }


def from_json(result: Any, caller: AnsweredCaller | None = None, asked: Program | None = None) -> Prediction:
    """Return the prediction that a result holds, its outputs as the types the program's signature states.

    Args:
        result: The JSON form.
        caller: The caller that reads it; None for the one whose request computed it.
        asked: The program as the caller's variant serves it, where that is known.

    Raises:
        NotAPrediction: If the result is none of ours, or of a later version.
    """
    if not is_prediction(result):
        raise NotAPrediction("the result under this task id was not written by a dspyq worker of this version")
    try:
        metadata = metadata_from_json(result["metadata"], caller)
        if asked is None or caller is None or metadata.fallback is not None or asked.name != metadata.program:
            program = _program_of(metadata)
        else:
            program = asked
        outputs = (
            decode_outputs(program, result["outputs"], result.get("exact")) if program else dict(result["outputs"])
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise NotAPrediction(f"the prediction under this task id is damaged: {type(error).__name__}") from error
    return _made(Prediction, outputs=outputs, metadata=metadata, _stored=result["outputs"])


def _program_of(metadata: Metadata) -> Program | None:
    """Return the program as the variant that answered serves it; None where it is not configured here."""
    program = get_settings().programs.get(metadata.program)
    return program and program.as_served(metadata.fallback or metadata.variant)


def metadata_from_json(stored: Mapping[str, Any], caller: AnsweredCaller | None = None) -> Metadata:
    """Return metadata from its JSON form, for a caller that was answered without a run of its own."""
    usage, cost_usd = stored["usage"], stored["cost_usd"] and float(stored["cost_usd"])
    variant, request_id, cache_level = caller or (stored["variant"], stored["request_id"], stored["cache_level"])
    return _made(
        Metadata,
        program=stored["program"],
        variant=variant,
        model=stored["model"],
        input_hash=stored["input_hash"],
        request_id=request_id,
        timestamp=float(stored["timestamp"]),
        usage=_made(Usage, prompt_tokens=usage["prompt_tokens"], completion_tokens=usage["completion_tokens"]),
        cost_usd=0.0 if caller else cost_usd,
        duration_seconds=float(stored["duration_seconds"]),
        cache_level=cache_level,
        fallback=stored.get("fallback"),
        finish_reason=stored.get("finish_reason"),
    )
