"""``dspyq guards``: what breakers, rate limits and budgets keep of models, programs and variants that are gone."""

from __future__ import annotations

from typing import Annotated

import typer

from dspyq.config.settings import get_settings
from dspyq.console.output import JsonOption, console, print_json
from dspyq.errors import DspyqError
from dspyq.store.clients import money_client, redis_errors

app = typer.Typer(
    help="Look after what breakers, rate limits and set budgets left of removed models, programs and variants.",
    no_args_is_help=True,
)


@app.command()
def forget(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A model, PROGRAM or PROGRAM.VARIANT; all that can be, if left out."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Delete breakers, rates and set limits of models, programs and variants that are not configured.

    Run it with the newest configuration, once no worker has an older one. `dspyq queues forget` deletes their
    statistics; `dspyq forget` deletes content of a tenant, of a unit or from before a day.

    Example: `dspyq guards forget` or `dspyq guards forget old.control`
    """
    forget_removed(name, as_json=as_json)


def forget_removed(name: str | None, *, as_json: bool) -> None:
    """Delete guards' state of one name that is not configured, or of all; print what that was.

    Raises:
        DspyqError: If it is configured, or nothing is kept of it.
    """
    from dspyq.guards import removed
    from dspyq.guards.limits import configured_scopes

    settings, client = get_settings(), money_client()
    with redis_errors("forget what was removed"):
        found = removed.find_leftovers(client, settings)
        if name is not None:
            found = found.of(name)
            if not found.models and not found.limits:
                scopes = {f"program:{name}", f"variant:{name}"} & configured_scopes(settings)
                is_configured = bool(scopes) or name in settings.models
                why = "it is configured" if is_configured else "nothing is kept of such a model, program or variant"
                raise DspyqError(f"{name!r} cannot be forgotten: {why}")
        removed.forget(client, found)
    if as_json:
        print_json({"models": list(found.models), "limits": list(found.limits)})
    else:
        names = [*(f"model:{model}" for model in found.models), *found.limits]
        console.print(f"forgotten: {', '.join(names) or 'nothing'}", markup=False)
