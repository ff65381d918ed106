"""``dspyq breaker``: show and control the models' circuit breakers and gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspyq.config.models import Model
from dspyq.config.settings import get_settings
from dspyq.console.output import JsonOption, console, print_json, print_table
from dspyq.errors import DspyqError
from dspyq.store.clients import money_client, redis_errors

if TYPE_CHECKING:
    from dspyq.guards.breaker_state import Command

app = typer.Typer(help="Show and control the models' circuit breakers and gates.", no_args_is_help=True)

ModelArgument = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="The name of its `[models.NAME]` table; may be left out where one is all."),
]
AllOption = Annotated[bool, typer.Option("--all", help="Every model.")]


@app.command()
def show(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="The name of its `[models.NAME]` table; else every model.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show each model's breaker, gate and rate limit, as all workers see them.

    A gate is closed for all workers after a 429 of the provider (`retry_after`) or a refused account (`account`).

    Example: `dspyq breaker show` or `dspyq breaker show fast --json`
    """
    models = _chosen(model, everything=model is None)
    with redis_errors("read the breakers"):
        rows = [_described(each) for each in models]
    if as_json:
        print_json(rows)
        return
    titles = ["model", "breaker", "failed", "opened", "gate", "requests/s", "tokens/min"]
    print_table("Before the models", titles, [_cells(row) for row in rows])


@app.command()
def reset(model: ModelArgument = None, everything: AllOption = False, as_json: JsonOption = False) -> None:
    """Reset a model: its breaker closes with all counts at zero, and its gate opens.

    Use it when the provider works again, or the account is in order again.

    Example: `dspyq breaker reset fast`
    """
    models = _chosen(model, everything=everything)
    _command("reset", models)
    with redis_errors("open the gate"):
        for each in models:
            _gate(each).reset()
    _print_done("reset", models, as_json=as_json)


@app.command("open")
def open_(model: ModelArgument = None, everything: AllOption = False, as_json: JsonOption = False) -> None:
    """Keep every worker from calling a model until its breaker is closed or reset.

    Until then, its jobs follow their program's `when_unavailable`. Calls in progress are not interrupted.

    Example: `dspyq breaker open fast`
    """
    models = _chosen(model, everything=everything)
    _command("open", models)
    _print_done("opened", models, as_json=as_json)


@app.command()
def close(model: ModelArgument = None, everything: AllOption = False, as_json: JsonOption = False) -> None:
    """Close a model's breaker at once, without a probe; it opens again on failures as usual.

    Example: `dspyq breaker close fast`
    """
    models = _chosen(model, everything=everything)
    _command("close", models)
    _print_done("closed", models, as_json=as_json)


def _chosen(name: str | None, *, everything: bool) -> list[Model]:
    models = get_settings().models
    if everything and name is None:
        return list(models.values())
    if everything:
        raise typer.BadParameter("name a MODEL or use --all, not both")
    if name is None and len(models) == 1:
        return list(models.values())
    if name is None:
        raise DspyqError(f"name a model or use --all; there is {', '.join(models)}")
    if name not in models:
        raise DspyqError(f"there is no model {name!r}; there is {', '.join(models)}")
    return [models[name]]


def _breaker(model: Model) -> Any:
    from dspyq.guards.breaker_state import BreakerPolicy, FleetBreaker

    return FleetBreaker(money_client(), model.name, BreakerPolicy.of(get_settings(), model))


def _gate(model: Model) -> Any:
    from dspyq.guards.provider_gate import GatePolicy, ProviderGate

    return ProviderGate(money_client(), model.name, GatePolicy.of(get_settings()))


def _described(model: Model) -> dict[str, Any]:
    from dspyq.guards.breaker_state import BreakerPolicy
    from dspyq.store.scripts import run_together

    (state,) = run_together(money_client(), [_breaker(model).look()])
    gate = _gate(model).read()
    return {
        "model": model.name,
        "state": state.name,
        "is_forced": state.is_forced,
        "failures": state.failures,
        "failure_threshold": BreakerPolicy.of(get_settings(), model).failure_threshold,
        "open_seconds": state.open_seconds,
        "openings": state.openings,
        "gate_reason": gate.reason or None,
        "gate_seconds": gate.closed_seconds,
        "requests_per_second": model.requests_per_second,
        "burst_requests": model.burst_requests,
        "tokens_per_minute": model.tokens_per_minute,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    breaker = row["state"]
    if row["is_forced"]:
        breaker = "open (forced)"
    elif breaker == "open":
        breaker = f"open for {row['open_seconds']:.0f} s"
    gate = f"{row['gate_reason']} {row['gate_seconds']:.0f} s" if row["gate_reason"] else "open"
    rate, pace = row["requests_per_second"], row["tokens_per_minute"]
    return [
        row["model"],
        breaker,
        f"{row['failures']}/{row['failure_threshold']}",
        f"{row['openings']:,}",
        gate,
        f"{rate:g}" if rate else "–",
        f"{pace:,}" if pace else "–",
    ]


def _command(command: Command, models: list[Model]) -> None:
    with redis_errors(f"{command} the breaker"):
        for each in models:
            _breaker(each).command(command)


def _print_done(what: str, models: list[Model], *, as_json: bool) -> None:
    names = [model.name for model in models]
    if as_json:
        print_json({what: names})
    else:
        console.print(f"{what}: {', '.join(names)}")
