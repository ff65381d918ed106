"""What one call of ``predict`` asks for: checked, assigned to a variant, and hashed to its key."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson
from blake3 import blake3
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, to_jsonable_python
from typing_extensions import TypedDict

from dspyq.config.models import Program, Variant
from dspyq.config.settings import get_settings
from dspyq.config.signature import Field, SignatureError
from dspyq.errors import InputsTooLarge, InvalidInputs, UnknownProgram, UnknownVariant
from dspyq.prediction.assignment import assign
from dspyq.tracing.propagation import current_request_id


class Request(NamedTuple):
    """A prediction that can be served.

    Attributes:
        program: The program asked.
        variant: The variant that answers.
        canonical_inputs: The inputs as JSON with sorted keys.
        input_hash: 64 hexadecimal digits over program, variant fingerprint and inputs.
        request_id: The caller's id of this request.
        refresh: Whether a cached answer will not do.
    """

    program: Program
    variant: Variant
    canonical_inputs: bytes
    input_hash: str
    request_id: str
    refresh: bool

    @property
    def queue(self) -> str:
        """The variant's queue."""
        return self.variant.queue

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs as JSON values."""
        inputs: dict[str, Any] = orjson.loads(self.canonical_inputs)
        return inputs

    def header(self, *, is_claimed: bool, batch: str = "") -> Header:
        """Return what tells a worker how to answer."""
        return Header(
            program=self.program.name,
            variant=self.variant.name,
            fingerprint=self.program.fingerprints[self.variant.name],
            input_hash=self.input_hash,
            request_id=self.request_id,
            refresh=self.refresh,
            is_claimed=is_claimed,
            batch=batch,
        )


class Header(NamedTuple):
    """A request as its message carries it, beside the inputs.

    Attributes:
        program: The program's name.
        variant: The variant's name.
        fingerprint: What the variant's answers depend on, where the message was sent.
        input_hash: As of ``Request``.
        request_id: As of ``Request``.
        refresh: As of ``Request``.
        is_claimed: Whether the message's task claimed the question when it was sent.
        batch: The batch that claimed it, and so pays for it; empty for none.
    """

    program: str
    variant: str
    fingerprint: str
    input_hash: str
    request_id: str
    refresh: bool
    is_claimed: bool
    batch: str = ""

    @property
    def queue(self) -> str:
        """The variant's queue."""
        return f"{self.program}.{self.variant}"


def build_request(  # noqa: PLR0913 - the options of a prediction, all by name
    inputs: Mapping[str, Any],
    *,
    program: str | None = None,
    variant: str | None = None,
    unit: object = None,
    refresh: bool = False,
    request_id: str | None = None,
) -> Request:
    """Check a call and turn it into a request.

    Args:
        inputs: The program's input fields.
        program: The program's name; may be left out where there is one.
        variant: A variant to force; else the unit's.
        unit: Whom the experiment sticks to; the inputs where left out.
        refresh: Whether to skip the cache.
        request_id: The caller's id; where left out, that of the request the code works for, or a random one.

    Raises:
        InvalidRequest: If it can never be served; its subclasses say why.
    """
    asked = find_program(program)
    canonical = _contract(asked.name).canonical(inputs)
    if variant is not None:
        chosen = find_variant(asked, variant)
    else:
        chosen = assign(asked, canonical.decode() if unit is None else str(unit))
    key = blake3(f"{asked.name}\0{asked.fingerprints[chosen.name]}\0".encode() + canonical).hexdigest()
    own_id = request_id or current_request_id() or os.urandom(16).hex()
    return Request(asked, chosen, canonical, key, own_id, bool(refresh))


def find_program(name: str | None) -> Program:
    """Return a program by name, or the only one.

    Raises:
        UnknownProgram: If there is none of that name, or none is named and there is not exactly one.
    """
    programs = get_settings().programs
    if name is None:
        if len(programs) == 1:
            return next(iter(programs.values()))
        if not programs:
            raise UnknownProgram("no program is configured; add a [programs.<name>] table to the configuration file")
        raise UnknownProgram(f"say which program, with program=: {', '.join(programs)}")
    found = programs.get(name)
    if found is None:
        raise UnknownProgram(f"there is no program {name!r}{_hint(name, programs)}")
    return found


def find_variant(program: Program, name: str) -> Variant:
    """Return a program's variant by name.

    Raises:
        UnknownVariant: If it has none of that name.
    """
    found = program.variants.get(name)
    if found is None:
        raise UnknownVariant(f"program {program.name!r} has no variant {name!r}{_hint(name, program.variants)}")
    return found


class _Contract:
    """What a program accepts as inputs."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._names = [field.name for field in program.signature.inputs]
        fields = {field.name: _checked_type(field) for field in program.signature.inputs}
        shape = TypedDict("shape", fields)  # type: ignore[misc]  # its fields are the configuration's
        shape.__pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]  # where pydantic looks
        self._validate = TypeAdapter(shape).validator.validate_json

    def canonical(self, inputs: Mapping[str, Any]) -> bytes:
        """Return the inputs as canonical JSON.

        Raises:
            InvalidInputs: With everything that is wrong with them, in one line that quotes no value.
            InputsTooLarge: If they exceed the program's ``max_input_bytes``.
        """
        try:
            canonical = orjson.dumps(inputs, default=to_jsonable_python, option=orjson.OPT_SORT_KEYS)
            self._validate(canonical)
        except ValidationError as error:
            raise InvalidInputs(self._explain(error)) from None
        except (TypeError, ValueError) as error:
            raise InvalidInputs(f"the inputs of {self._program.name} are not JSON: {error}") from None
        if b"null" in canonical and _has_non_finite(inputs):
            raise InvalidInputs(f"the inputs of {self._program.name} hold NaN or infinity, which JSON has no form for")
        if len(canonical) > self._program.max_input_bytes:
            raise InputsTooLarge(
                f"the inputs of {self._program.name} take {len(canonical):,} bytes, more than the "
                f"{self._program.max_input_bytes:,} of programs.{self._program.name}.max_input_bytes"
            )
        return canonical

    def _explain(self, error: ValidationError) -> str:
        faults = [self._fault(details) for details in error.errors(include_url=False, include_input=False)]
        return f"{self._program.name} takes {', '.join(self._names)}: {'; '.join(dict.fromkeys(faults))}"

    def _fault(self, details: ErrorDetails) -> str:
        name, *inside = details["loc"]
        if not inside and details["type"] == "missing":
            return f"{name} is missing"
        if not inside and details["type"] == "extra_forbidden":
            return f"{name} is unknown{_hint(str(name), self._names)}"
        where = "".join(f"[{part!r}]" for part in inside)
        return f"{name}{where} is of the wrong type ({details['msg'][0].lower()}{details['msg'][1:]})"


def _checked_type(field: Field) -> Any:
    """The type a producer can check: one whose module is not installed here is left to the worker."""
    try:
        return field.resolve()
    except SignatureError:
        return Any


@functools.cache
def _contract(program_name: str) -> _Contract:
    return _Contract(get_settings().programs[program_name])


def _has_non_finite(value: Any) -> bool:
    """Whether a float that is no number hides in a value; orjson would write it as null."""
    match value:
        case float():
            return value != value or value in (float("inf"), float("-inf"))  # noqa: PLR0124 - NaN alone differs from itself
        case Mapping():
            return any(map(_has_non_finite, value.values()))
        case list() | tuple():
            return any(map(_has_non_finite, value))
        case _:
            return False


def _hint(name: str, known: Iterable[str]) -> str:
    names = list(known)
    import difflib  # noqa: PLC0415 - only a mistake needs it

    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else f"; there is {', '.join(names)}"
