"""The ``dspyq`` command."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any

import typer

from dspyq.cli import (
    breaker_commands,
    budget_commands,
    cache_commands,
    costs_commands,
    dead_commands,
    encryption_commands,
    experiment_commands,
    feedback_commands,
    forget_commands,
    guard_commands,
    health_commands,
    init_commands,
    key_commands,
    lane_commands,
    program_commands,
    queue_commands,
    serve_commands,
    spine_commands,
    tenant_commands,
    users_commands,
    worker_commands,
)
from dspyq.cli.batch import commands as batch
from dspyq.config.settings import require_configuration
from dspyq.console.output import JsonOption, prepare_streams, print_error, print_faults, print_text
from dspyq.errors import ConfigurationError, DspyqError

#: Commands that read no configuration, or report its faults themselves.
_WITHOUT_CONFIGURATION = {
    ("batch", "report"),
    ("check",),
    ("demo",),
    ("encryption", "new-key"),
    ("health",),
    ("init",),
    ("up",),
    ("version",),
}
#: Click's, or that of the copy that newer versions of typer have.
_CommandLineError: Any = typer.BadParameter.__mro__[2]

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
app.add_typer(encryption_commands.app, name="encryption")
app.add_typer(experiment_commands.app, name="experiment")
app.add_typer(guard_commands.app, name="guards")
app.add_typer(key_commands.app, name="keys")
app.add_typer(lane_commands.app, name="lane")
app.add_typer(queue_commands.app, name="queues")
app.add_typer(tenant_commands.app, name="tenants")
app.command()(program_commands.predict)
app.command()(program_commands.check)
app.command()(program_commands.variants)
app.command()(costs_commands.costs)
app.command()(feedback_commands.feedback)
app.command()(forget_commands.forget)
app.command()(health_commands.health)
app.command()(init_commands.init)
app.command()(serve_commands.serve)
app.command()(spine_commands.spines)
app.command()(users_commands.users)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(worker_commands.worker)


@app.command(context_settings={"allow_interspersed_args": False})
def demo(
    command: Annotated[
        list[str] | None, typer.Argument(help="A command of the project here, to run on its own programs.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A real model, as DSPy names it, instead of the small bundled one.")
    ] = None,
    api_base: Annotated[str | None, typer.Option(help="Its endpoint; by default the provider's own.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="The environment variable that holds its key.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the full path of a prediction on this machine: Redis, a model, a worker, two variants.

    Examples: `dspyq demo --model openai/gpt-4o-mini --api-base https://api.openai.com/v1`;
    `dspyq demo python producer.py`, in a project: its own programs, each on the small model, while the command runs.
    """
    if command:
        from dspyq.stack.project_demo import run_project_demo

        if model or api_base or api_key_env or as_json:
            raise ConfigurationError("options of the demo do not go with a command: its project states the models")
        return run_project_demo(command)
    from dspyq.stack.demo import run_demo

    return run_demo(model=model, api_base=api_base, api_key_env=api_key_env, as_json=as_json)


@app.command()
def up() -> None:
    """Keep the demo's stack running, with Flower, until Ctrl-C."""
    from dspyq.stack.up import run_up

    run_up()


@app.command()
def version() -> None:
    """Print the version."""
    print_text(f"dspyq {installed_version('dspyq')}")


def main() -> None:
    """Run the command; a user's mistake is one line and a non-zero exit."""
    prepare_streams()
    if (folder := str(Path.cwd())) not in sys.path:  # the folder of the configuration's programs and types
        sys.path.insert(0, folder)
    try:
        sys.exit(whole_command()(prog_name="dspyq", standalone_mode=False))
    except DspyqError as error:
        print_faults(error)
    except typer.Abort:
        print_error("Aborted")
    except _CommandLineError as error:
        _explain(error)
        sys.exit(error.exit_code)
    sys.exit(1)


@functools.cache
def whole_command() -> Any:
    """Return the command, whose parts look for the configuration before they run; built once."""
    command = typer.main.get_command(app)
    for path, part in _parts(command, ()):
        if path not in _WITHOUT_CONFIGURATION:
            part.callback = _with_configuration(part.callback)
    return command


def _parts(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    parts = getattr(command, "commands", None)
    if parts is None:
        yield path, command
        return
    for name, part in parts.items():
        yield from _parts(part, (*path, name))


def _with_configuration(run: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse to run without a configuration: in a wrong folder, everything would count as removed from it."""

    @functools.wraps(run)
    def checked(*arguments: Any, **options: Any) -> Any:
        require_configuration()
        return run(*arguments, **options)

    return checked


def _explain(error: Any) -> None:
    """Print what is wrong with a command line as one line; of a group without a command, its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print_text(error.ctx.get_help())
        return
    context = error.ctx
    hint = f"; see {context.command_path} --help" if context else ""
    message = " ".join(error.format_message().split()).rstrip(".").replace(": Value error, ", ": ")  # typer's own words
    print_error(f"{message}{hint}")
