"""The contract of a program's inputs: their names and types, and the one form in which they are hashed and sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NotRequired

import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import ErrorDetails, to_jsonable_python
from typing_extensions import TypedDict

from dspyq.config.codec import encode_inputs, find_type_faults, fits_as_it_is, is_exact
from dspyq.config.set_order import jsonable
from dspyq.config.settings import get_settings
from dspyq.config.signature import Field, SignatureError
from dspyq.core.depth import MOST_DEPTH
from dspyq.core.runtime import per_runtime
from dspyq.errors import ConfigurationError, InputsTooLarge, InvalidInputs

if TYPE_CHECKING:
    from dspyq.config.programs import Program

_SHOWN_NAME_CHARACTERS = 64


class Contract:
    """Check of a program's inputs.

    Args:
        program: The program.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._names = [field.name for field in program.signature.inputs]
        self._defaults = {f.name: f.default for f in program.signature.inputs if f.default_text is not None}
        self._typed = [field.name for field in program.signature.inputs if not field.is_json]
        self._validate = self._validator()

    def canonical(self, inputs: Mapping[str, Any]) -> bytes:
        """Return the inputs as canonical JSON.

        Raises:
            InvalidInputs: With all their faults, in one line that quotes no value.
            InputsTooLarge: If they exceed the program's ``max_input_bytes``.
        """
        if self._defaults:
            inputs = {**self._defaults, **inputs}
        validate = self._validate
        if self._typed:
            inputs = encode_inputs(self._program, inputs)
            if exact := [name for name in self._typed if is_exact(inputs.get(name))]:
                validate = self._validator(exact)
        try:
            canonical = orjson.dumps(inputs, default=jsonable, option=orjson.OPT_SORT_KEYS)
            try:
                validate(canonical)
            except Exception:  # noqa: BLE001 - of the user's own validators too
                self._check_loosely(inputs, canonical)
        except ValidationError as error:
            raise self._explained(error) from None
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInputs(self._why_not_json(error)) from None
        if b"null" in canonical and _has_non_finite(inputs):
            raise InvalidInputs(f"the inputs of {self._program.name} hold NaN or infinity, which JSON has no form for")
        if len(canonical) > self._program.max_input_bytes:
            raise InputsTooLarge(
                f"the inputs of {self._program.name} take {len(canonical):,} bytes, more than the "
                f"{self._program.max_input_bytes:,} of programs.{self._program.name}.max_input_bytes"
            )
        # A copy: the bytes that orjson returns keep the 4 KiB that they were written in.
        return bytes(memoryview(canonical))

    def _check_loosely(self, inputs: Mapping[str, Any], canonical: bytes) -> None:
        """Check inputs, except values that validators returned: a validator need not accept its own result."""
        stated = {field.name: field for field in self._program.signature.inputs}
        fitting = [name for name in self._typed if name in inputs and fits_as_it_is(stated[name], inputs[name])]
        exact = [name for name in self._typed if is_exact(inputs.get(name))]
        try:
            self._validator([*fitting, *exact])(canonical)
        except ValidationError:
            raise
        except Exception as error:  # noqa: BLE001 - of the user's own validators too
            raise InvalidInputs(
                f"{self._program.name} takes {', '.join(self._names)}: a validator raised {type(error).__name__}"
            ) from None

    def _validator(self, unchecked: Sequence[str] = ()) -> Callable[[bytes], Any]:
        """Return a validator of inputs in JSON that leaves out ``unchecked``: exact forms of values that fit."""
        fields = {
            field.name: Any if field.name in unchecked else _checked_type(field)
            for field in self._program.signature.inputs
        }
        shape = TypedDict("shape", fields)  # type: ignore[misc]  # its fields are the configuration's
        shape.__pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]  # where pydantic looks
        try:
            return TypeAdapter(shape).validator.validate_json
        except PydanticSchemaGenerationError:
            raise ConfigurationError(find_type_faults(self._program)) from None

    def _why_not_json(self, error: Exception) -> str:
        if (
            isinstance(error, RecursionError)
            or isinstance(error.__cause__, RecursionError)
            or "Recursion" in str(error)
        ):
            return self._too_deep()
        return f"the inputs of {self._program.name} are not JSON: {error}"

    def _too_deep(self) -> str:
        return f"the inputs of {self._program.name} nest deeper than {MOST_DEPTH} levels, or hold themselves"

    def _explained(self, error: ValidationError) -> InvalidInputs:
        found = error.errors(include_url=False, include_input=False)
        if found[0]["type"] == "json_invalid":
            return InvalidInputs(self._too_deep())  # what orjson wrote is JSON
        texts = [self._fault(details) for details in found]
        explained = InvalidInputs(
            f"{self._program.name} takes {', '.join(self._names)}: {'; '.join(dict.fromkeys(texts))}"
        )
        pointers = ["".join(f"/{_escaped(part)}" for part in details["loc"]) for details in found]
        explained.faults = tuple(dict(zip(pointers, texts, strict=True)).items())
        return explained

    def _fault(self, details: ErrorDetails) -> str:
        name, *inside = details["loc"]
        if not inside and details["type"] == "missing":
            return f"{name} is missing"
        if not inside and details["type"] == "extra_forbidden":
            return f"{name} is unknown{hint(str(name), self._names)}"
        where = "".join(f"[{part!r}]" for part in inside)
        return f"{name}{where} is of the wrong type ({details['msg'][0].lower()}{details['msg'][1:]})"


def _escaped(part: object) -> str:
    """Return a part of a JSON pointer (RFC 6901)."""
    return str(part).replace("~", "~0").replace("/", "~1")


def _checked_type(field: Field) -> Any:
    """Return the type for a producer's check; workers check types of DSPy and of modules not installed here."""
    try:
        type_ = Any if field.is_of_dspy else field.resolve()
    except SignatureError:
        type_ = Any
    return NotRequired[type_] if field.may_be_left_out else type_


@per_runtime(is_kept=True)
def _contracts() -> dict[str, Contract]:
    return {}


def contract_of(program_name: str) -> Contract:
    """Return the contract of a program."""
    contracts = _contracts()
    if (contract := contracts.get(program_name)) is None:
        contract = contracts[program_name] = Contract(get_settings().programs[program_name])
    return contract


def _has_non_finite(value: Any) -> bool:
    """Return True if a value contains NaN or infinity, which orjson would write as null."""
    match value:
        case float():
            return value != value or value in (float("inf"), float("-inf"))  # noqa: PLR0124 - NaN alone differs from itself
        case Mapping():
            return any(map(_has_non_finite, value.values()))
        case list() | tuple():
            return any(map(_has_non_finite, value))
        case None | bool() | int() | str():
            return False
        case _:  # a dataclass, a set, a model: as it is written
            return _has_non_finite(to_jsonable_python(value, inf_nan_mode="constants", fallback=str))


def hint(name: object, known: Iterable[str]) -> str:
    """Return the end of a message on an unknown name: the one that is meant, or all there are."""
    names = list(known)
    name = str(name)[:_SHOWN_NAME_CHARACTERS]
    import difflib  # noqa: PLC0415 - only a mistake needs it

    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else f"; there is {', '.join(names)}"
