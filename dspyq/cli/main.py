"""The ``dspyq`` command."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from dspyq.cli import (
    breaker_commands,
    budget_commands,
    cache_commands,
    costs_commands,
    dead_commands,
    health_commands,
    program_commands,
)
from dspyq.cli.batch import commands as batch
from dspyq.console.output import JsonOption
from dspyq.errors import ConfigurationError, DspyqError

app = typer.Typer(
    name="dspyq",
    help="DSPy programs as Celery jobs: cached, deduplicated, assigned to A/B variants.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="The configuration is the file DSPYQ_CONFIG names, or dspyq.toml here; Redis is at DSPYQ_REDIS_URL.",
)
app.add_typer(batch.app, name="batch")
app.add_typer(breaker_commands.app, name="breaker")
app.add_typer(budget_commands.app, name="budget")
app.add_typer(cache_commands.app, name="cache")
app.add_typer(dead_commands.app, name="dead")
app.command()(program_commands.predict)
app.command()(program_commands.check)
app.command()(program_commands.variants)
app.command()(costs_commands.costs)
app.command()(health_commands.health)


@app.command()
def demo(
    model: Annotated[
        str | None, typer.Option(help="A real model, as DSPy names it, instead of the small bundled one.")
    ] = None,
    api_base: Annotated[str | None, typer.Option(help="Its endpoint; the provider's own where left out.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="The environment variable that holds its key.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the whole way of a prediction on this machine: Redis, a model, a worker, two variants.

    Example: `dspyq demo --model openai/gpt-4o-mini --api-base https://api.openai.com/v1`
    """
    from dspyq.stack.demo import run_demo

    run_demo(model=model, api_base=api_base, api_key_env=api_key_env, as_json=as_json)


@app.command()
def up() -> None:
    """Keep the demo's stack running, with Flower, until Ctrl-C."""
    from dspyq.stack.up import run_up

    run_up()


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"dspyq {installed_version('dspyq')}")


def main() -> None:
    """Run the command; a user's mistake is one line and a non-zero exit."""
    if (folder := str(Path.cwd())) not in sys.path:  # where the programs and types of the configuration live
        sys.path.insert(0, folder)
    try:
        app()
    except ConfigurationError as error:
        for fault in error.faults:
            typer.secho(f"dspyq: {fault}", fg="red", err=True)
        sys.exit(1)
    except DspyqError as error:
        typer.secho(f"dspyq: {error}", fg="red", err=True)
        sys.exit(1)
