"""``dspyq lane``: look at the shipments of a model's lane, and change their course."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspyq.cli.report.texts import short_duration
from dspyq.console.output import JsonOption, console, dollars, print_count, print_json, print_table
from dspyq.core.money import to_usd
from dspyq.core.runtime import current
from dspyq.errors import DspyqError
from dspyq.store.clients import redis_errors
from dspyq.store.spines import current_spine, each_spine, on_each_spine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dspyq.core.runtime import Runtime
    from dspyq.lane.administration import LaneAdmin, LaneStatus
    from dspyq.lane.shipment import Shipment
    from dspyq.store.spines import Spine

_BYTES_PER_TOKEN = 4
#: The beginning of a shipment's name, which is enough for `dspyq lane cancel`; the whole is in --json and in logs.
_NAME_CHARACTERS = 14

app = typer.Typer(
    help="Look at model calls that go to a provider's batch interface, and change their course.",
    no_args_is_help=True,
)


def _models() -> list[str]:
    """Return the models that have a lane, for the shell's completion too."""
    from dspyq.config.settings import get_settings

    return [model.name for model in get_settings().models.values() if model.batch_protocol is not None]


def _complete(incomplete: str) -> list[str]:
    try:
        return [name for name in _models() if name.startswith(incomplete)]
    except DspyqError:  # a shell has no use for the reason
        return []


LaneModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="The name of a [models] table.", autocompletion=_complete)
]


@app.command()
def show(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="All lanes, if left out.", autocompletion=_complete)
    ] = None,
    past: Annotated[int, typer.Option(help="How many past shipments to show too.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show each lane: lines that wait for a shipment, and shipments with their state, lines, money held and age.

    Example: `dspyq lane show fast --past 10`
    """
    with redis_errors("read the lanes"):
        known = _known()
        names = known if model is None else [_checked(model, known)]
        lanes = list(
            chain.from_iterable(on_each_spine(lambda: [(current_spine(), *_read(each, past)) for each in names]))
        )
    if as_json:
        print_json([
            {
                **({"spine": spine.name} if spine else {}),
                **_plain(lane),
                "shipments": [_plain(each) for each in lane.shipments],
                "past": [_plain(each) for each in ended],
            }
            for spine, lane, ended in lanes
        ])  # fmt: skip
        return
    if not lanes:
        console.print("No model has a lane: state models.<name>.batch, or leave api_base out.")
    for spine, lane, ended in lanes:
        _print(lane, ended, spine)


@app.command()
def flush(model: LaneModelArgument, as_json: JsonOption = False) -> None:
    """Ship the lines that wait in a lane now, without waiting for further ones.

    Example: `dspyq lane flush fast`
    """
    with redis_errors("flush the lane"):
        _checked(model, _known())
        number = sum(on_each_spine(lambda: _flush_here(model)))
    print_count("to be shipped", number, as_json=as_json)


@app.command()
def cancel(
    shipment: Annotated[str, typer.Argument(metavar="SHIPMENT", help="Its name, or the beginning of it.")],
    as_json: JsonOption = False,
) -> None:
    """Cancel a shipment at its provider: finished lines are paid and used, the others are shipped again, or go live.

    Example: `dspyq lane cancel dspyq-3f2a`
    """
    with redis_errors("cancel the shipment"):
        known = _known()
        found = list(chain.from_iterable(on_each_spine(lambda: _shipments_here(known, shipment))))
        if len(found) != 1:
            what = f"{len(found)} shipments begin with" if found else "there is no shipment"
            raise DspyqError(f"{what} {shipment!r}: see dspyq lane show")
        model, name, runtime = found[0]
        with runtime.active():
            _admin().journal(model).cancel(name)
    if as_json:
        print_json({"model": model, "shipment": name})
    else:
        console.print(f"{name} of {model} is to be cancelled: see dspyq lane show {model}")


@app.command()
def salvage(
    model: LaneModelArgument,
    hours: Annotated[float, typer.Option(help="How long ago the oldest batch may have been created.", min=0)] = 48.0,
    as_json: JsonOption = False,
) -> None:
    """Read the replies of batches again that the provider still has, after Redis has lost its data.

    Run it where a worker could run: it needs the model's key. The same calls take these replies for a day and cost
    nothing; run the batches again after it.

    Example: `dspyq lane salvage fast`
    """
    from dspyq.config.settings import get_settings
    from dspyq.store.clients import jobs_client

    with redis_errors("salvage the lane"):
        for _ in each_spine():
            jobs_client().ping()
        _checked(model, _models())
        try:
            from dspyq.lane.providers.choice import provider_for
            from dspyq.lane.providers.errors import BatchInterfaceError
            from dspyq.lane.salvaging import Salvage
            from dspyq.programs.engine import Engine
        except ImportError:
            raise DspyqError("salvage reads replies as a worker does: install dspyq[worker]") from None
        stated = get_settings().models[model]
        engine = Engine(stated)
        try:
            reader = engine.batch_wire
            provider = provider_for(str(stated.batch_protocol), reader.access(), reader.access)
            since = time.time() - 3600 * hours
            found = Salvage(model, provider, reader).run(since)
        except BatchInterfaceError as error:
            raise DspyqError(f"models.{model}: {error}") from None
        finally:
            engine.close()
    if as_json:
        print_json(asdict(found))
        return
    console.print(
        f"{found.replies:,} replies of {found.batches:,} batches are kept for a day; {found.unreadable:,} lines could "
        f"not be read; {found.running:,} batches still run"
    )
    if found.gone:
        console.print(
            f"{len(found.gone):,} batches have no results any more, as shipments that were collected: "
            f"{', '.join(found.gone)}"
        )
    if found.running:
        console.print("Salvage again once they have ended.")


def _admin() -> LaneAdmin:
    from dspyq.lane.administration import LaneAdmin
    from dspyq.store.clients import jobs_client

    return LaneAdmin(jobs_client())


def _shipments_here(models: Sequence[str], start: str) -> list[tuple[str, str, Runtime]]:
    """Return the shipments on the active spine whose names begin so."""
    return [
        (model, each.name, current())
        for model in models
        for each in _admin().journal(model).shipments()
        if each.name.startswith(start)
    ]


def _known() -> list[str]:
    """Return the models with a lane: the configured ones, and others whose lanes hold anything."""
    held = chain.from_iterable(on_each_spine(lambda: _admin().models()))
    return list(dict.fromkeys([*_models(), *held]))


def _read(model: str, past: int) -> tuple[LaneStatus, list[Shipment]]:
    admin = _admin()
    return admin.show(model), admin.journal(model).past()[:past] if past else []


def _flush_here(model: str) -> int:
    journal = _admin().journal(model)
    if number := journal.open_lines().number:
        journal.flush()
    return number


def _checked(model: str, lanes: list[str]) -> str:
    """Return a model that has a lane.

    Raises:
        DspyqError: If it has none.
    """
    from dspyq.config.settings import get_settings

    if model in lanes:
        return model
    known = f"with a lane: {', '.join(lanes) or 'none'}"
    if model in get_settings().models:
        raise DspyqError(f"models.{model}.batch: this model has no batch interface; {known}")
    raise DspyqError(f"there is no [models.{model}] table; {known}")


def _plain(state: Any) -> dict[str, Any]:
    kept = asdict(state)
    return {name: value for name, value in kept.items() if not name.startswith("_")}


def _print(lane: LaneStatus, ended: Sequence[Shipment], spine: Spine | None) -> None:
    where = f" on {spine.name}" if spine else ""
    unpaid = f"; {lane.unpaid_rows:,} rows wait for money" if lane.unpaid_rows else ""
    waits = f", the first for {short_duration(lane.oldest_open_seconds)}" if lane.open_lines else ""
    console.print(
        f"{lane.model}{where}: {lane.open_lines:,} lines wait for a shipment{waits}; {lane.shipped_lines:,} are at the "
        f"provider; {dollars(to_usd(lane.held_nano_usd))} held{unpaid}"
    )
    rows = [_row(each, lane.now) for each in [*lane.shipments, *ended]]
    if rows:
        columns = ["shipment", "state", "lines", "tokens", "answered", "failed", "again", "age", "filled (UTC)", "id"]
        spare = ["id", "filled (UTC)", "tokens", "again"]
        print_table(f"Shipments of {lane.model}{where}", columns, rows, spare=spare)


def _row(shipment: Shipment, now: float) -> list[str]:
    end = shipment.ended_at or now
    filled = datetime.fromtimestamp(shipment.filled_at, UTC).isoformat(timespec="seconds")[:19]
    return [
        shipment.name[:_NAME_CHARACTERS],
        shipment.remote_state or shipment.state,
        f"{shipment.lines:,}",
        f"{shipment.size_bytes // _BYTES_PER_TOKEN:,}",
        f"{shipment.answered:,}",
        f"{shipment.failed:,}",
        f"{shipment.unanswered:,}",
        short_duration(max(0.0, end - shipment.filled_at)) if shipment.filled_at else "",
        filled if shipment.filled_at else "",
        shipment.batch_id,
    ]
