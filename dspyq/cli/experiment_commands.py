"""``dspyq experiment``: run experiments over a program's variants."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from dspyq.cli import experiment_export_commands
from dspyq.cli.report.writing import write_report
from dspyq.config.programs import Program
from dspyq.config.settings import get_settings
from dspyq.console.output import JsonOption, console, print_json, print_table, print_text
from dspyq.errors import DspyqError
from dspyq.experiments import administration
from dspyq.experiments.state import ExperimentState
from dspyq.experiments.status import status as find_standing
from dspyq.prediction.request import find_variant

app = typer.Typer(help="Run experiments over a program's variants.", no_args_is_help=True)
app.command()(experiment_export_commands.export)

ProgramArgument = Annotated[
    str | None,
    typer.Argument(metavar="PROGRAM", help="The program's name; may be left out where one has an experiment."),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="For the log.")]


@app.command()
def start(program: ProgramArgument = None, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Start the experiment that the configuration file states.

    Its table is frozen: later edits of the file do not change a running experiment. Coverage begins at the ramp's first
    step.

    Example: `dspyq experiment start qa`
    """
    _print_change(administration.start(_program(program), reason=reason), as_json=as_json)


@app.command()
def status(program: ProgramArgument = None, as_json: JsonOption = False) -> None:
    """Show how an experiment stands: each metric with its difference, interval and evidence, and the verdict.

    The look at the sums is made now, also without a worker.

    Example: `dspyq experiment status qa --json`
    """
    from dspyq.cli.experiment_status import print_standing, standing_as_json

    names = [_name(program)] if program else _with_experiments()
    found = [(_described(name, administration.read_state(name)), find_standing(name)) for name in names]
    if as_json:
        print_json([row | (standing_as_json(standing) if standing else {}) for row, standing in found])
        return
    others = [row for row, standing in found if standing is None]
    for row, standing in found:
        if standing is not None:
            print_standing(standing, file=row["file"])
    if others:
        titles = ["program", "experiment", "status", "coverage", "arms", "others get", "file"]
        print_table("Experiments", titles, [_cells(row) for row in others])


@app.command()
def ramp(
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="The program's name.")],
    coverage: Annotated[
        float | None, typer.Argument(metavar="COVERAGE", help="The part of all units to enrol, 0 to 1.")
    ] = None,
    held: Annotated[
        bool | None,
        typer.Option("--hold/--follow", help="Keep the coverage, or follow the plan's ramp again."),
    ] = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Change how many units are enrolled; no unit changes its arm.

    Example: `dspyq experiment ramp qa 0.5` or `dspyq experiment ramp qa --follow`
    """
    if (coverage is None) == (held is None):
        raise typer.BadParameter("give a COVERAGE, --hold or --follow")
    name = _name(program)
    if coverage is not None:
        state = administration.ramp(name, coverage, reason=reason)
    else:
        state = administration.hold(name, held=bool(held), reason=reason)
    _print_change(state, as_json=as_json)


@app.command()
def pause(program: ProgramArgument = None, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Serve the control to all and count nothing, until it is resumed.

    Example: `dspyq experiment pause qa --reason "the provider is slow"`
    """
    _print_change(administration.pause(_program(program).name, reason=reason), as_json=as_json)


@app.command()
def resume(program: ProgramArgument = None, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Go on with a paused experiment; every unit gets its arm again.

    Example: `dspyq experiment resume qa`
    """
    _print_change(administration.resume(_program(program).name, reason=reason), as_json=as_json)


@app.command()
def kill(
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="The program's name.")],
    arm: Annotated[str, typer.Argument(metavar="ARM", help="The challenger to kill.")],
    reason: ReasonOption = "",
    forget: Annotated[bool, typer.Option("--forget", help="Forget its cached answers too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Stop a challenger at once: no unit gets it, and no model call of it begins, not even of queued jobs.

    Its queued jobs are answered by the control. Its cached answers are served only to calls that force it; `--forget`
    deletes them as well.

    Example: `dspyq experiment kill qa challenger --reason "answers in French"`
    """
    asked = _program(program)
    find_variant(asked, arm)
    state = administration.kill(asked.name, arm, reason=reason)
    if not forget:
        return _print_change(state, as_json=as_json)
    from dspyq.cache.admin import clear

    forgotten = clear(program=asked.name, variant=arm)
    _print_change(state, as_json=as_json, forgotten_answers=forgotten)
    return None


@app.command()
def stop(
    program: ProgramArgument = None,
    serve: Annotated[str | None, typer.Option("--serve", help="The variant to serve to all; else the control.")] = None,
    by_weight: Annotated[bool, typer.Option("--by-weight", help="Leave assignment to the file's weights.")] = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """End an experiment for good, and serve one variant to all, whatever the file's weights.

    Example: `dspyq experiment stop qa --serve challenger --reason "it wins"`
    """
    if serve and by_weight:
        raise typer.BadParameter("give --serve or --by-weight, not both")
    name = _program(program).name
    _print_change(administration.stop(name, serve=serve, by_weight=by_weight, reason=reason), as_json=as_json)


@app.command()
def log(
    program: ProgramArgument = None,
    most: Annotated[int, typer.Option("--most", min=1, help="How many changes to show.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show who changed a program's experiments, when and why.

    Example: `dspyq experiment log qa`
    """
    entries = administration.read_log(_program(program).name, most)
    if as_json:
        print_json([entry._asdict() for entry in entries])
        return
    rows = [
        [_time(entry.at), f"{entry.version}", entry.what, entry.detail or "–", entry.who, entry.reason or "–"]
        for entry in entries
    ]
    print_table("Changes", ["time", "version", "change", "to", "by", "reason"], rows)


@app.command()
def report(
    program: ProgramArgument = None,
    html: Annotated[Path | None, typer.Option(help="Write a page of HTML, with plots, here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown here; printed if you pass neither.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Report on an experiment: verdict, intervals over time, guards, sample ratio, cost, time, feedback, plan and log.

    Works while it runs and after it has ended. The page is one file without scripts, and fetches nothing. It shows no
    inputs and no answers.

    Example: `dspyq experiment report qa --html report.html`
    """
    from dspyq.cli.experiment_report import gather, to_html, to_markdown

    content = gather(_program(program))
    for path, render in ((html, to_html), (markdown, to_markdown)):
        if path is not None:
            write_report(path, render(content))
    if as_json:
        print_json(content.as_json())
    elif html is None and markdown is None:
        print_text(to_markdown(content), end="")


@app.command()
def simulate(
    calls_per_day: Annotated[float, typer.Option(min=1, help="Calls of the program a day, of all units.")],
    baseline: Annotated[float, typer.Option(help="The control's mean of the primary metric, in its unit.")],
    program: ProgramArgument = None,
    deviation: Annotated[
        float | None, typer.Option(min=0, help="The standard deviation of a row, where the baseline does not state it.")
    ] = None,
    questions: Annotated[
        int | None, typer.Option(min=1, max=10_000_000, help="Different questions, where they repeat.")
    ] = None,
    zipf: Annotated[float, typer.Option(min=0, max=3, help="The exponent by which their popularity falls.")] = 1.0,
    calls_per_unit: Annotated[float, typer.Option(min=1, help="Calls of a unit.")] = 5.0,
    correlation: Annotated[float, typer.Option(min=0, max=1, help="Between rows of a unit.")] = 0.05,
    as_json: JsonOption = False,
) -> None:
    """Estimate the calls and the days that the experiment in the file needs, and its chances of a verdict.

    Nothing is read from Redis and nothing is started.

    Example: `dspyq experiment simulate qa --calls-per-day 4000 --baseline 0.71`
    """
    from dspyq.cli.experiment_simulation import (
        Assumptions,
        fault_of_baseline,
        plan_as_json,
        print_plan,
        simulate_plan,
    )

    table = administration.plan_of(_program(program)).table
    assumed = Assumptions(calls_per_day, baseline, deviation, questions, zipf, calls_per_unit, correlation)
    if fault := fault_of_baseline(table, assumed):
        raise typer.BadParameter(fault, param_hint="--baseline")
    plan = simulate_plan(table, assumed)
    if as_json:
        print_json({"experiment": table["name"], **plan_as_json(plan, assumed)})
    else:
        print_plan(plan, table)


def _with_experiments() -> list[str]:
    """Return the names of programs that the file states an experiment for; those of all programs where none does."""
    programs = get_settings().programs
    stated = [name for name, program in programs.items() if program.experiment is not None]
    return stated or list(programs)


def _program(name: str | None) -> Program:
    return get_settings().programs[_name(name)]


def _name(name: str | None) -> str:
    programs = get_settings().programs
    if name is None:
        stated = _with_experiments()
        if len(stated) != 1:
            raise DspyqError(f"name a program; there is {', '.join(programs)}")
        return stated[0]
    if name not in programs:
        raise DspyqError(f"there is no program {name!r}; there is {', '.join(programs)}")
    return name


def _described(name: str, state: ExperimentState | None) -> dict[str, Any]:
    program = get_settings().programs[name]
    planned = administration.plan_of(program).sha256 if program.experiment is not None else None
    if state is None:
        return {"program": name, "status": None, "file": "not started" if planned else "no experiment"}
    if planned is None:
        file = "no experiment"
    else:
        file = "as planned" if planned == state.plan_sha256 else "differs from the plan"
    return {"program": name, "salt": state.salt, **_stated(state), "file": file}


def _stated(state: ExperimentState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in state.__dataclass_fields__ if name != "program"}


def _cells(row: dict[str, Any]) -> list[str]:
    if row["status"] is None:
        return [row["program"], "–", "–", "–", "–", "–", row["file"]]
    arms = ", ".join(f"{arm} (killed)" if arm in row["killed"] else arm for arm in row["arms"])
    others = "by weight" if row["status"] == "off" else row["serve"]
    coverage = f"{row['coverage']:.2%}" + (" (held)" if row["is_held"] else "")
    return [row["program"], row["name"], row["status"], coverage, arms, others, row["file"]]


def _print_change(state: ExperimentState, *, as_json: bool, **counts: int) -> None:
    if as_json:
        print_json({"program": state.program, "salt": state.salt, **_stated(state), **counts})
    else:
        killed = f", {', '.join(state.killed)} killed" if state.killed else ""
        console.print(
            f"{state.program}: {state.name} is {state.status}, coverage {state.coverage:.2%}, "
            f"others get {state.serve}{killed} (version {state.version})",
            highlight=False,
        )
        for name, number in counts.items():
            console.print(f"{name.replace('_', ' ')}: {number:,}", highlight=False)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
