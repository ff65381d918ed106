"""The body of a POST as a question: its inputs and options, checked against what the caller may do."""

from __future__ import annotations

from typing import Any, NamedTuple

from dspyq.client.asking import LEAST_URGENT
from dspyq.config.settings import get_settings
from dspyq.errors import InvalidInputs, InvalidOption, UnknownProgram
from dspyq.prediction.contract import hint
from dspyq.prediction.request import MOST_UNIT_CHARACTERS, Request, build_request
from dspyq.serve.callers import Caller
from dspyq.serve.exchange import Exchange
from dspyq.serve.problems import FORBIDDEN, MALFORMED, Declined
from dspyq.serve.values import whole_numbers

OPTIONS = ("variant", "unit", "refresh", "priority")
_NO_OPTIONS = frozenset({"inputs"})
_MEMBERS = frozenset({"inputs", "stream", *OPTIONS})


class CallOptions(NamedTuple):
    """Options of one call, or of all rows of one request.

    Attributes:
        variant: The variant to force; None for the unit's.
        unit: What the variant is assigned to; None for the inputs themselves.
        refresh: Whether a cached answer will not do.
        priority: The turn, 0 (most urgent) to 9.
        streams: Whether the answer is to come as a stream.
    """

    variant: str | None
    unit: str | None
    refresh: bool
    priority: int
    streams: bool = False


def check_program(caller: Caller, program: str) -> str:
    """Return the name of a program that the caller may ask.

    Raises:
        UnknownProgram: If there is none, as far as this caller may know.
    """
    if program not in get_settings().programs or not caller.may_ask(program):
        raise UnknownProgram("there is no program of this name")
    return program


def most_bytes_of(exchange: Exchange, program: str) -> int:
    """Return the most bytes that the body of a program's request may have."""
    return exchange.door.settings.programs[program].max_body_bytes or exchange.door.serve.max_body_bytes


def read_options(  # noqa: C901 - a check for each option, one after another
    body: Any, caller: Caller, members: frozenset[str] = _MEMBERS
) -> CallOptions:
    """Return the options in a body.

    Args:
        body: The body, as parsed.
        caller: The caller, who may lack the right to some.
        members: All members that a body of this kind may have.

    Raises:
        Declined: If the body is no object, or the caller may not state one of its options.
        InvalidOption: If one is unknown, or not of its type.
    """
    if not isinstance(body, dict):
        raise Declined(MALFORMED, "the body is to be a JSON object")
    if members is _MEMBERS and body.keys() == _NO_OPTIONS:
        return CallOptions(None, None, refresh=False, priority=caller.most_urgent)
    for name in body:
        if name not in members:
            raise InvalidOption(f"there is no member {name[:64]!r}{hint(name, sorted(members))}")
    variant, unit, priority = body.get("variant"), body.get("unit"), body.get("priority")
    refresh, streams = body.get("refresh", False), body.get("stream", False)
    if not isinstance(variant, str | None) or not isinstance(unit, str | None):
        raise InvalidOption("variant and unit are texts")
    if len(unit or "") > MOST_UNIT_CHARACTERS:  # here, as a request without rows has no question
        raise InvalidOption(f"a unit may have {MOST_UNIT_CHARACTERS:,} characters")
    if not isinstance(refresh, bool) or not isinstance(streams, bool):
        raise InvalidOption("refresh and stream are true or false")
    if variant is not None:
        caller.check("variant")
        if caller.variants is not None and variant not in caller.variants:
            raise Declined(FORBIDDEN, "the key does not allow this variant")
    if refresh:
        caller.check("refresh")
    if streams:
        caller.check("stream")
    return CallOptions(variant, unit, refresh, _priority(priority, caller), streams)


def build_question(inputs: Any, caller: Caller, program: str, options: CallOptions, request_id: str) -> Request:
    """Return a question, checked and assigned to a variant.

    Args:
        inputs: The inputs, as parsed.
        caller: The caller.
        program: The program.
        options: The options.
        request_id: The caller's id of its request.

    Raises:
        InvalidRequest: If it can never be served.
    """
    return build_row(inputs, "/inputs", caller, CallOfProgram(program, options, request_id))


class CallOfProgram(NamedTuple):
    """Part of a call that all rows of one request share.

    Attributes:
        program: The program.
        options: The options.
        request_id: The caller's id of its request.
    """

    program: str
    options: CallOptions
    request_id: str


def build_row(inputs: Any, place: str, caller: Caller, call: CallOfProgram) -> Request:
    """Return a question, checked and assigned to a variant.

    Args:
        inputs: The inputs, as parsed.
        place: The JSON pointer to them, at which the faults of an error begin.
        caller: The caller.
        call: The rest of the call.

    Raises:
        InvalidRequest: If it can never be served.
    """
    if not isinstance(inputs, dict):
        error = InvalidInputs("inputs are to be an object with the program's input fields")
        error.faults = ((place, "is to be an object"),)
        raise error
    options = call.options
    try:
        return build_request(
            whole_numbers(call.program, inputs),
            program=call.program,
            variant=options.variant,
            unit=options.unit,
            refresh=options.refresh,
            stream=options.streams,
            request_id=call.request_id,
            tenant=caller.tenant or None,
        )
    except InvalidInputs as error:
        error.faults = tuple((place + pointer, detail) for pointer, detail in error.faults)
        raise


def _priority(stated: Any, caller: Caller) -> int:
    if stated is None:
        return caller.most_urgent
    if isinstance(stated, float) and stated.is_integer():
        stated = int(stated)
    if type(stated) is not int or not 0 <= stated <= LEAST_URGENT:
        raise InvalidOption(f"priority is a whole number from 0, the most urgent, to {LEAST_URGENT}")
    if stated < caller.most_urgent:
        raise Declined(FORBIDDEN, f"the key's most urgent priority is {caller.most_urgent}")
    return int(stated)
