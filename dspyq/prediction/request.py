"""A call of ``predict`` as a request: checked, assigned to a variant, and hashed to its key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import orjson
from blake3 import blake3

from dspyq.config.settings import get_settings
from dspyq.core.ids import hex_ids, new_id
from dspyq.errors import (
    InvalidInputs,
    InvalidOption,
    UnknownProgram,
    UnknownVariant,
)
from dspyq.experiments.fence import ANY_STATE
from dspyq.experiments.known import process_states
from dspyq.prediction.assignment import assign
from dspyq.prediction.contract import contract_of, hint
from dspyq.prediction.enrolment import Enrolment, enrol, is_of_shadow
from dspyq.prediction.header import EXPERIMENT, TENANT, Header
from dspyq.prediction.options import PREDICT_OPTIONS, PredictOptions, RowOptions
from dspyq.prediction.tenants import NO_TENANT, check_tenant, owner_of_answer
from dspyq.store.seal_keys import hash_of, process_question_keys
from dspyq.tracing.propagation import current_request_id

if TYPE_CHECKING:
    from dspyq.config.programs import Program
    from dspyq.config.variants import Variant
    from dspyq.experiments.exposure import Exposure


class Request(NamedTuple):
    """A checked call that can be served.

    Attributes:
        program: The program asked, as its variant serves it.
        variant: The variant that answers.
        canonical_inputs: The inputs as JSON with sorted keys.
        input_hash: 64 hexadecimal digits over program, variant fingerprint and inputs.
        request_id: The caller's id of this request.
        refresh: Whether a cached answer will not do.
        unit: What the variant was assigned to; None for the inputs themselves.
        exposure: The call as the program's experiment counts it; None for one that it does not count.
        scope: As of ``Enrolment``.
        seen: As of ``Enrolment``.
        noted_as: The task id under which the experiment notes a call that waits for a run; empty for one that it does
            not count.
        is_streamed: Whether its text is streamed while it comes.
        tenant: The tenant of the call, which pays for the run that it claims; empty for none.
    """

    program: Program
    variant: Variant
    canonical_inputs: bytes
    input_hash: str
    request_id: str
    refresh: bool
    unit: str | None = None
    exposure: Exposure | None = None
    scope: str = ""
    seen: str = ANY_STATE
    noted_as: str = ""
    is_streamed: bool = False
    tenant: str = ""

    @property
    def queue(self) -> str:
        """The variant's queue."""
        return self.variant.queue

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs as JSON values."""
        inputs: dict[str, Any] = orjson.loads(self.canonical_inputs)
        return inputs

    @property
    def is_shadow(self) -> bool:
        """True if a challenger answers unseen, for its comparison with the control."""
        return is_of_shadow(self.scope)

    @property
    def sharer(self) -> str:
        """The caller's tenant where tenants share answers, or ``NO_TENANT``; empty where they do not."""
        return "" if self.program.share == "tenant" else self.tenant or NO_TENANT

    def noted(self, task_id: str) -> Request:
        """Return the call as it is asked under a task id."""
        return self if self.exposure is None else self._replace(noted_as=task_id)

    def header(self, *, is_claimed: bool, batch: str = "") -> Header:
        """Return the header of its message; a claim counted the call already."""
        exposure = self.exposure.stated() if self.exposure and not is_claimed else ""
        needs = (EXPERIMENT,) if self.scope or self.exposure else ()
        return Header(
            program=self.program.name,
            variant=self.variant.name,
            fingerprint=self.program.fingerprints[self.variant.name],
            input_hash=self.input_hash,
            request_id=self.request_id,
            refresh=self.refresh,
            is_claimed=is_claimed,
            batch=batch,
            needs=(*needs, TENANT) if self.tenant else needs,
            scope=self.scope,
            exposure=exposure,
            stream=self.is_streamed and not batch,
            tenant=self.tenant,
        )


#: A request's id and a unit go into messages, logs and traces.
MOST_ID_CHARACTERS = 256
MOST_UNIT_CHARACTERS = 1_024
_SHOWN_NAME_CHARACTERS = 64


def build_request(
    inputs: Mapping[str, Any], *, is_by_weight: bool = False, **options: Unpack[PredictOptions]
) -> Request:
    """Check a call and turn it into a request.

    Args:
        inputs: The program's input fields.
        is_by_weight: Whether the file's weights decide, whatever the program's experiment.
        **options: The options of the call.

    Raises:
        InvalidRequest: If it can never be served; its subclasses state the reason.
        TypeError: If there is no such option.
    """
    if not options and not is_by_weight:  # as of each delay()
        asked = find_program(None)
        canonical = contract_of(asked.name).canonical(inputs)
        own_id = _id_of_context() or new_id()
        if len(asked.variants) > 1:
            call = _CheckedCall(canonical, own_id, refresh=False, unit=None)
            return _enrolled(asked, enrol(asked, canonical, None), call)
        (chosen,) = asked.variants.values()
        key = hash_inputs(asked.name, asked.fingerprints[chosen.name], canonical)
        return Request(asked.served[chosen.name], chosen, canonical, key, own_id, refresh=False)
    if not options.keys() <= PREDICT_OPTIONS:
        raise TypeError(f"a prediction has no option {', '.join(sorted(options.keys() - PREDICT_OPTIONS))}")
    asked, variant, unit = find_program(options.get("program")), options.get("variant"), options.get("unit")
    canonical = contract_of(asked.name).canonical(inputs)
    stated_unit = None if unit is None else _checked_unit(unit)
    if variant is not None:
        enrolment = Enrolment(find_variant(asked, variant), seen=ANY_STATE)
    elif is_by_weight:
        enrolment = _enrolled_by_weight(asked, canonical, stated_unit)
    else:
        enrolment = enrol(asked, canonical, stated_unit)
    own_id = _checked_id(options.get("request_id")) or _id_of_context() or new_id()
    refresh, is_streamed = bool(options.get("refresh")), _checked_stream(options.get("stream", False))
    call = _CheckedCall(canonical, own_id, refresh, stated_unit, is_streamed, _checked_tenant(options))
    return _enrolled(asked, enrolment, call)


def enrol_again(request: Request, *, is_by_weight: bool = False) -> Request:
    """Return a call with the variant that the latest state of its program's experiment, or its weight, gives it."""
    asked = find_program(request.program.name)
    if is_by_weight:
        enrolment = _enrolled_by_weight(asked, request.canonical_inputs, request.unit)
    else:
        enrolment = enrol(asked, request.canonical_inputs, request.unit)
    _, _, canonical_inputs, _, request_id, refresh, unit, *_ = request
    call = _CheckedCall(canonical_inputs, request_id, refresh, unit, request.is_streamed, request.tenant)
    return _enrolled(asked, enrolment, call)


def _enrolled_by_weight(asked: Program, canonical_inputs: bytes, unit: str | None) -> Enrolment:
    return Enrolment(assign(asked, canonical_inputs if unit is None else unit), seen=ANY_STATE)


class _CheckedCall(NamedTuple):
    """A checked call that has no variant yet."""

    canonical_inputs: bytes
    request_id: str
    refresh: bool
    unit: str | None
    is_streamed: bool = False
    tenant: str = ""


def _enrolled(asked: Program, enrolment: Enrolment, call: _CheckedCall) -> Request:
    variant, exposed, scope, seen = enrolment
    canonical, request_id, refresh, unit, is_streamed, tenant = call
    owner = owner_of_answer(asked, tenant)
    key = hash_inputs(asked.name, asked.fingerprints[variant.name], canonical, scope, owner)
    exposure = None if exposed is None else exposed.asking(key, canonical)
    return Request(
        asked.served[variant.name],
        variant,
        canonical,
        key,
        request_id,
        refresh,
        unit,
        exposure,
        scope,
        seen,
        is_streamed=is_streamed and asked.stream is not False,
        tenant=tenant,
    )


def build_requests(rows: Iterable[Mapping[str, Any]], **options: Unpack[RowOptions]) -> Iterator[Request]:
    """Check calls of the same options and yield them as requests, as ``build_request`` does.

    What they have in common is looked up once, with the first row.

    Raises:
        InvalidRequest: If a row can never be served; one of its inputs, with its number.
    """
    numbered, ids = enumerate(rows, start=1), hex_ids()
    number, inputs = next(numbered, (0, {}))
    if not number:
        return
    try:
        first = build_request(inputs, **options)
    except InvalidInputs as error:
        raise _in_row(number, error) from None
    yield first
    program, variant, refresh, unit, tenant = first.program, first.variant, first.refresh, first.unit, first.tenant
    contract, own_id, served = contract_of(program.name), _id_of_context(), program.served
    is_assigned = options.get("variant") is not None or unit is not None or len(program.variants) == 1
    has_experiment = process_states().get(program.name) is not None and first.seen != ANY_STATE
    asked, owner = find_program(program.name), owner_of_answer(program, tenant)
    own_key = process_question_keys().of(program.name)
    starts = {name: _start_of_hash(program.name, own, "", owner) for name, own in program.fingerprints.items()}
    for number, inputs in numbered:
        try:
            canonical = contract.canonical(inputs)
        except InvalidInputs as error:
            raise _in_row(number, error) from None
        own = own_id or next(ids)
        if has_experiment:
            call = _CheckedCall(canonical, own, refresh, unit, tenant=tenant)
            yield _enrolled(asked, enrol(asked, canonical, unit), call)
            continue
        if not is_assigned:
            variant = assign(program, canonical)
        key = hash_of(starts[variant.name] + canonical, own_key).hexdigest()
        yield Request(served[variant.name], variant, canonical, key, own, refresh, unit, seen=first.seen, tenant=tenant)


def _in_row(number: int, error: InvalidInputs) -> InvalidInputs:
    return type(error)(f"row {number}: {error}")


def hash_inputs(program: str, fingerprint: str, canonical_inputs: bytes, scope: str = "", tenant: str = "") -> str:
    """Return the hash that identifies a question; one of a scope, and one of a tenant, has answers of its own.

    That of a sealed program is keyed: without the key, it cannot be compared with those of guessed inputs.
    """
    question = _start_of_hash(program, fingerprint, scope, tenant) + canonical_inputs
    keys = process_question_keys().of_programs.get(program)
    return (blake3(question, key=keys[0]) if keys else blake3(question)).hexdigest()


def hashes_of_job(program: str, fingerprint: str, canonical_inputs: bytes, scope: str, tenant: str) -> Iterator[str]:
    """Yield the hashes that a job's question may have: with each key, and without one where plain text is read too."""
    question = _start_of_hash(program, fingerprint, scope, tenant) + canonical_inputs
    for key in process_question_keys().of_programs.get(program, ()):
        yield blake3(question, key=key).hexdigest()
    if get_settings().programs[program].encrypt is not True:
        yield blake3(question).hexdigest()


def _start_of_hash(program: str, fingerprint: str, scope: str, tenant: str) -> bytes:
    if tenant:
        return f"{program}\0{fingerprint}\0{scope}\0{tenant}\0".encode()
    return f"{program}\0{fingerprint}\0{scope}\0".encode() if scope else f"{program}\0{fingerprint}\0".encode()


def _checked_tenant(options: PredictOptions) -> str:
    tenant = options.get("tenant")
    return "" if tenant is None else check_tenant(tenant)


def _checked_unit(unit: object) -> str:
    text = str(unit)
    if len(text) > MOST_UNIT_CHARACTERS:
        raise InvalidOption(f"unit has {len(text):,} characters; it may have {MOST_UNIT_CHARACTERS:,}")
    return text


def _checked_stream(stream: object) -> bool:
    if not isinstance(stream, bool):
        raise InvalidOption("stream is True or False")
    return stream


def _checked_id(request_id: object) -> str:
    if request_id is None:
        return ""
    text = str(request_id)
    if len(text) > MOST_ID_CHARACTERS:
        raise InvalidOption(f"request_id has {len(text):,} characters; it may have {MOST_ID_CHARACTERS}")
    if not _is_writable(text):
        raise InvalidOption("request_id holds a control character or half a surrogate pair")
    return text


def check_task_id(task_id: object) -> str:
    """Return a task id that a caller chose; it becomes part of keys, logs and the names of runs.

    Raises:
        InvalidOption: If it is none.
    """
    if type(task_id) is not str or not 0 < len(task_id) <= MOST_ID_CHARACTERS or not _is_writable(task_id):
        raise InvalidOption(f"task_id is a text of 1 to {MOST_ID_CHARACTERS} characters without control characters")
    return task_id


def _id_of_context() -> str | None:
    """Return the id of the request that the code works for; one that is not usable is ignored, as others chose it."""
    found = current_request_id()
    return found if found and len(found) <= MOST_ID_CHARACTERS and _is_writable(found) else None


def _is_writable(text: str) -> bool:
    return text.isprintable()  # neither line ends nor surrogates are


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
        raise UnknownProgram(f"name a program with program=: {', '.join(programs)}")
    found = programs.get(name) if isinstance(name, str) else None
    if found is None:
        raise UnknownProgram(f"there is no program {_shown(name)}{hint(name, programs)}")
    return found


def find_variant(program: Program, name: str) -> Variant:
    """Return a program's variant by name.

    Raises:
        UnknownVariant: If it has none of that name.
    """
    found = program.variants.get(name) if isinstance(name, str) else None
    if found is None:
        raise UnknownVariant(f"program {program.name!r} has no variant {_shown(name)}{hint(name, program.variants)}")
    return found


def _shown(name: object) -> str:
    text = repr(name)
    return text if len(text) <= _SHOWN_NAME_CHARACTERS else f"{text[:_SHOWN_NAME_CHARACTERS]}…"
