"""The programs that a caller may ask, with the schemas of their inputs and outputs."""

from __future__ import annotations

from typing import Any

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dspyq.config.programs import Program
from dspyq.config.settings import get_settings
from dspyq.serve.asking.calls import check_program
from dspyq.serve.callers import Caller
from dspyq.serve.edge import recognized
from dspyq.serve.exchange import exchange_of
from dspyq.serve.values import SchemaForm, fields_schema


def describe(program: Program, caller: Caller) -> dict[str, Any]:
    """Return a program as the API shows it."""
    variants = [name for name in program.variants if caller.variants is None or name in caller.variants]
    return {
        "name": program.name,
        "object": "program",
        "variants": variants if "variant" in caller.can else [],
        "streams": program.stream is not False and "stream" in caller.can,
        "chat": program.chat_fields is not None,
        "inputs": fields_schema(program),
        "outputs": fields_schema(program, SchemaForm(is_of_outputs=True)),
    }


def visible_programs(caller: Caller) -> list[Program]:
    """Return the programs that a caller may ask."""
    return [program for name, program in get_settings().programs.items() if caller.may_ask(name)]


class ListPrograms:
    """``GET /v1/programs``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        caller = await recognized(exchange)
        described = [describe(program, caller) for program in visible_programs(caller)]
        await exchange.reply_json(200, {"object": "list", "data": described})


class ShowProgram:
    """``GET /v1/programs/{program}``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        caller = await recognized(exchange)
        name = check_program(caller, scope["path_params"]["program"])
        await exchange.reply_json(200, describe(get_settings().programs[name], caller))


ROUTES = [
    Route("/v1/programs", ListPrograms(), methods=["GET"]),
    Route("/v1/programs/{program}", ShowProgram(), methods=["GET"]),
]
