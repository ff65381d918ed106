"""``dspyq predict``, ``dspyq check`` and ``dspyq variants``."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from typing import Annotated, Any

import orjson
import redis
import typer
from celery.exceptions import TimeoutError as CeleryTimeoutError
from rich.text import Text

from dspyq.config.differences import find_differences, find_equals
from dspyq.config.secrets import scrub
from dspyq.config.settings import Settings, get_settings, require_configuration
from dspyq.console.output import JsonOption, console, dollars, percent, print_json, print_table, seconds
from dspyq.delivery.queues import FleetQueues, stray_queues
from dspyq.delivery.spine_holdings import describe_moves
from dspyq.errors import ConfigurationError, DspyqError, InvalidInputs
from dspyq.store.clients import redis_errors
from dspyq.store.content import process_codec
from dspyq.store.server import Finding, look_at_all_servers

#: `dspyq predict` prints the reason for the wait after this time.
_SAY_WHY_SECONDS = 4.0
#: Characters of a setting that `dspyq check` shows in its table.
_LONGEST_VALUE = 100

ProgramOption = Annotated[str | None, typer.Option(help="The program; may be left out where there is one.")]
VariantOption = Annotated[str | None, typer.Option(help="One of its variants; else the unit's.")]
TenantOption = Annotated[str | None, typer.Option(help="The tenant of the call; none where left out.")]


def predict(
    inputs: Annotated[list[str], typer.Argument(metavar="FIELD=VALUE...", help="The inputs, or one JSON object.")],
    program: ProgramOption = None,
    variant: VariantOption = None,
    unit: Annotated[
        str | None, typer.Option(help="The user or other id that stays on one variant; by default the inputs.")
    ] = None,
    tenant: TenantOption = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Compute a new answer.")] = False,
    timeout_seconds: Annotated[float, typer.Option("--timeout", help="Seconds to wait.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Request one prediction and wait for it.

    Example: `dspyq predict --program qa question="What is a task queue?"`
    """
    from dspyq import predict as task
    from dspyq.prediction.prediction import to_json

    asked = read_inputs(inputs, program)
    job = task.apply_async(kwargs=asked, program=program, variant=variant, unit=unit, tenant=tenant, refresh=refresh)
    prediction = _wait(job, timeout_seconds)
    shown = to_json(prediction.to_dict(), prediction.metadata)
    if as_json:
        print_json({"outputs": shown["outputs"], "metadata": shown["metadata"]})
        return
    for name, value in shown["outputs"].items():
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        console.print(Text(name, style="bold"), Text(text))
    metadata = prediction.metadata
    how = [
        metadata.queue,
        metadata.cache_level or "computed",
        metadata.model,
        f"{metadata.usage.total_tokens:,} tokens",
    ]
    how += [dollars(metadata.cost_usd), seconds(metadata.duration_seconds)]
    console.print(Text(" · ".join(how), style="dim"))


def _wait(job: Any, timeout_seconds: float) -> Any:
    """Wait for a prediction; after some seconds, print the reason for the wait."""
    from dspyq.guards.waits import reason

    if timeout_seconds > _SAY_WHY_SECONDS:
        try:
            return job.get(timeout=_SAY_WHY_SECONDS)
        except CeleryTimeoutError:
            typer.echo(f"dspyq: no answer yet: {reason(job.id)}", err=True)
            timeout_seconds -= _SAY_WHY_SECONDS
    try:
        return job.get(timeout=timeout_seconds)
    except CeleryTimeoutError:
        raise DspyqError(f"no answer in time (--timeout); the prediction goes on: {reason(job.id)}") from None


def check(as_json: JsonOption = False) -> None:
    """Check the configuration, every fault of it at once, and that Redis answers.

    It shows what is served, and what the variants of a program differ in. Where the `worker` extra is installed, this
    also builds each program as a worker does: classes, state files, prices and API keys.
    """
    faults: list[str] = []
    notes: list[str] = []
    try:
        path = require_configuration()
        settings = get_settings()
    except ConfigurationError as error:
        _fail(error.faults, as_json=as_json)
    has_worker = find_spec("dspy") is not None
    if has_worker:
        from dspyq.programs.judges import Judges
        from dspyq.programs.runner import build_programs, check_notes
        from dspyq.worker.logs.loki import read_authorization

        looks = (build_programs, Judges, lambda each: read_authorization(each.logging))
        for look in looks:
            try:
                look(settings)
            except ConfigurationError as error:
                faults += error.faults
        notes = [] if faults else check_notes(settings)
    else:
        faults += [unstated for program in settings.programs.values() if (unstated := program.unstated)]
    found: list[Finding] = []
    strays: list[str] = []
    try:
        with redis_errors("reach Redis"):
            process_codec()  # refuses keys that cannot be read
            found = look_at_all_servers(settings)
            strays = [] if faults or any(each.is_fault for each in found) else _find_strays(settings)
    except Exception as error:  # noqa: BLE001 - reported with the others
        faults.append(str(error))
    faults += [each.text for each in found if each.is_fault]
    if faults:
        _fail(tuple(dict.fromkeys(faults)), as_json=as_json)
    programs = settings.programs.values()
    served = [(program.served[variant.name], variant) for program in programs for variant in program.variants.values()]
    differences = {program.name: find_differences(program) for program in programs}
    notes += describe_moves()
    notes += [
        f"programs.{program.name}.variants: {' and '.join(group)} do not differ, so they share their answers"
        for program in programs
        for group in find_equals(program)
    ]
    if as_json:
        print_json(
            {
                "ok": True,
                "checked_as_worker": has_worker,
                "not_checked": [each.text for each in found],
                "warnings": [*notes, *strays],
                "variants": [
                    {
                        "queue": v.queue,
                        "model": v.model.model,
                        "weight": v.weight,
                        "fingerprint": p.fingerprints[v.name],
                    }
                    for p, v in served
                ],
                "differences": differences,
            }
        )
        return
    rows = [[v.queue, v.model.model, f"{v.weight:g}", p.fingerprints[v.name][:12], str(p.signature)] for p, v in served]
    print_table(f"{path} is good", ["queue", "model", "weight", "fingerprint", "signature"], rows)
    _print_differences(differences)
    for text in (
        *(f"Warning: {each}." for each in (*notes, *strays)),
        *(f"Not checked: {each.text}." for each in found),
    ):
        console.print(Text(text, style="dim"))
    if not has_worker:
        console.print("Not checked here: classes, state files, prices and keys (install dspyq[worker]).", style="dim")


def _print_differences(differences: dict[str, dict[str, dict[str, Any]]]) -> None:
    rows = [
        [f"{program}.{variant}", setting, _short(value)]
        for program, by_setting in differences.items()
        for setting, values in by_setting.items()
        for variant, value in values.items()
    ]
    if rows:
        print_table("What variants differ in", ["variant", "setting", "value"], rows)


def _short(value: Any) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def variants(as_json: JsonOption = False) -> None:
    """Show the statistics of each variant, over all producers and workers."""
    from dspyq.cache.statistics import variant_statistics

    statistics = variant_statistics()
    if as_json:
        derived = ("calls", "hits", "hit_rate", "success_rate")
        print_json([{**asdict(row), **{name: getattr(row, name) for name in derived}} for row in statistics])
        return
    columns = ["variant", "calls", "successes", "failures", "success", "mean run", "hit rate", "cost"]
    rows = [
        [
            f"{row.program}.{row.variant}",
            f"{row.calls:,}",
            f"{row.successes:,}",
            f"{row.failures:,}",
            percent(row.success_rate),
            seconds(row.mean_duration_seconds),
            percent(row.hit_rate),
            dollars(row.cost_usd),
        ]
        for row in statistics
    ]
    print_table("Variants", columns, rows)
    judged = [
        [f"{row.program}.{row.variant}", name, f"{each.count:,}", f"{each.mean:.3g}"]
        for row in statistics
        for name, each in row.feedback.items()
    ]
    if judged:
        print_table("Feedback", ["variant", "name", "calls", "mean"], judged)


def read_inputs(arguments: list[str], program: str | None) -> dict[str, Any]:
    """Read inputs from ``FIELD=VALUE`` arguments, or from one JSON object.

    Raises:
        InvalidInputs: If an argument is neither.
        UnknownProgram: If there is no such program.
    """
    from dspyq.prediction.request import find_program

    if len(arguments) == 1 and arguments[0].startswith("{"):
        try:
            inputs: dict[str, Any] = orjson.loads(arguments[0])
        except orjson.JSONDecodeError as error:
            raise InvalidInputs(f"the inputs are not valid JSON: {error}") from None
        return inputs
    texts = {field.name for field in find_program(program).signature.inputs if field.type_text == "str"}
    inputs = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise InvalidInputs(f"{argument!r} is not of the form FIELD=VALUE")
        inputs[name] = value if name in texts else _read_value(value)
    return inputs


def _read_value(value: str) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value  # a bare word, such as a Literal's; the program's contract checks it


def _find_strays(settings: Settings) -> list[str]:
    """Return what lies in Redis and no worker serves; a user that may not look for it gets that in a line."""
    from dspyq.cli.compiled_rows import find_compiled_rows

    try:
        return [*stray_queues(FleetQueues()), *find_compiled_rows(settings.programs.values())]
    except redis.exceptions.NoPermissionError:
        return ["queues were not looked at: this user of Redis may not list keys, or may not read jobs"]


def _fail(faults: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        print_json({"ok": False, "faults": [scrub(fault) for fault in faults]})
        raise typer.Exit(1)
    raise ConfigurationError(faults)
