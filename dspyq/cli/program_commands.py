"""``dspyq predict``, ``dspyq check`` and ``dspyq variants``."""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from celery.exceptions import TimeoutError as CeleryTimeoutError
from pydantic_core import to_jsonable_python
from rich.text import Text

from dspyq.config.settings import DEFAULT_FILE, get_settings
from dspyq.console.output import JsonOption, console, dollars, percent, print_json, print_table, seconds
from dspyq.errors import ConfigurationError, DspyqError, InvalidInputs
from dspyq.store.clients import answers_client, jobs_client, redis_errors

ProgramOption = Annotated[str | None, typer.Option(help="The program; may be left out where there is one.")]
VariantOption = Annotated[str | None, typer.Option(help="One of its variants; else the unit's.")]


def predict(
    inputs: Annotated[list[str], typer.Argument(metavar="FIELD=VALUE...", help="The inputs, or one JSON object.")],
    program: ProgramOption = None,
    variant: VariantOption = None,
    unit: Annotated[str | None, typer.Option(help="Whom the experiment sticks to; else the inputs.")] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Compute a new answer.")] = False,
    timeout_seconds: Annotated[float, typer.Option("--timeout", help="Seconds to wait.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Ask for one prediction and wait for it.

    Example: `dspyq predict --program qa question="What is a task queue?"`
    """
    from dspyq import predict as task
    from dspyq.prediction.prediction import to_json

    asked = read_inputs(inputs, program)
    job = task.apply_async(kwargs=asked, program=program, variant=variant, unit=unit, refresh=refresh)
    try:
        prediction = job.get(timeout=timeout_seconds)
    except CeleryTimeoutError:
        raise DspyqError(
            f"no answer within {timeout_seconds:g} s; is a worker running? (celery -A dspyq worker)"
        ) from None
    shown = to_json(to_jsonable_python(prediction.outputs), prediction.metadata)
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


def check(as_json: JsonOption = False) -> None:
    """Check the configuration, every fault of it at once, and that Redis answers.

    Where the `worker` extra is installed, this also builds each program as a worker does: classes, state files, prices
    and API keys.
    """
    faults: list[str] = []
    try:
        settings = get_settings()
    except ConfigurationError as error:
        _fail(error.faults, as_json=as_json)
    has_worker = find_spec("dspy") is not None
    if has_worker:
        from dspyq.programs.runner import build_programs

        try:
            build_programs(settings)
        except ConfigurationError as error:
            faults += error.faults
    for client in (jobs_client(), answers_client()):
        try:
            with redis_errors("reach Redis"):
                client.ping()
        except Exception as error:  # noqa: BLE001 - told with the others
            faults.append(str(error))
    if faults:
        _fail(tuple(dict.fromkeys(faults)), as_json=as_json)
    path = Path(os.environ.get("DSPYQ_CONFIG", DEFAULT_FILE))
    served = [(program, variant) for program in settings.programs.values() for variant in program.variants.values()]
    if as_json:
        print_json(
            {
                "ok": True,
                "checked_as_worker": has_worker,
                "variants": [
                    {
                        "queue": v.queue,
                        "model": v.model.model,
                        "weight": v.weight,
                        "fingerprint": p.fingerprints[v.name],
                    }
                    for p, v in served
                ],
            }
        )
        return
    rows = [[v.queue, v.model.model, f"{v.weight:g}", p.fingerprints[v.name][:12], str(p.signature)] for p, v in served]
    print_table(f"{path} is good", ["queue", "model", "weight", "fingerprint", "signature"], rows)
    if not has_worker:
        console.print("[dim]Not checked here: classes, state files, prices and keys (install dspyq\\[worker]).[/dim]")


def variants(as_json: JsonOption = False) -> None:
    """Show what each variant did, over all producers and workers."""
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
        return value  # a bare word, as of a Literal; the program's contract judges it


def _fail(faults: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        print_json({"ok": False, "faults": faults})
        raise typer.Exit(1)
    raise ConfigurationError(faults)
