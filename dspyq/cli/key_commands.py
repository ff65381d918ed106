"""``dspyq keys``: the keys of the HTTP API."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspyq.api_keys.form import IssuedKey, make_key, read_key_id, sha256_of
from dspyq.api_keys.record import stated_grant
from dspyq.api_keys.stated import table_of
from dspyq.cli.budget_commands import limits_from_options
from dspyq.cli.key_options import (
    BurstOption,
    CanOption,
    ExpiresOption,
    KeyIdArgument,
    NetworksOption,
    OriginsOption,
    PriorityOption,
    ProgramsOption,
    RateOption,
    VariantsOption,
    WaitingOption,
    check_name,
    expiry,
    grant_changes,
    read_id,
)
from dspyq.config.key_grants import KeyGrant
from dspyq.config.periods import process_calendar
from dspyq.console.output import JsonOption, console, print_json, print_table, print_text
from dspyq.console.periods import read_period
from dspyq.core.private import open_private
from dspyq.errors import DspyqError, InvalidOption
from dspyq.prediction.tenants import check_tenant
from dspyq.store.clients import money_client, redis_errors

if TYPE_CHECKING:
    from dspyq.api_keys.record import KeyRecord
    from dspyq.api_keys.store import ApiKeys

app = typer.Typer(
    help="Look after the keys of the HTTP API. What is changed here holds in every server within a second.",
    no_args_is_help=True,
)

OutputOption = Annotated[
    Path | None, typer.Option("--output", help="Write the key to this new file, readable by you alone.")
]
_USAGE_DAYS = 31


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="The tenant whose budget, answers and usage it works on.")],
    name: Annotated[str, typer.Option(help="A name for people, as in ci.")],
    programs: ProgramsOption = None,
    variants: VariantsOption = None,
    priority: PriorityOption = None,
    can: CanOption = None,
    origins: OriginsOption = None,
    networks: NetworksOption = None,
    rate: RateOption = None,
    burst: BurstOption = None,
    most_waiting: WaitingOption = None,
    expires: ExpiresOption = None,
    daily: Annotated[
        str | None, typer.Option(help="The tenant's limit in dollars a day, where the tenant is new.")
    ] = None,
    for_file: Annotated[
        bool, typer.Option("--for-file", help="Store nothing, and print the key's table for the configuration file.")
    ] = False,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key, and print it once: only its hash is kept.

    A tenant that is there keeps its limits: change those with `dspyq tenants limit`.

    Examples: `dspyq keys create --tenant acme --name ci`;
    `dspyq keys create --tenant acme --name web --programs qa --rate 20 --expires 90d --daily 5 --output acme.key`
    """
    owner, label, expires_at = check_tenant(tenant), check_name(name), expiry(expires)
    options = {
        "programs": programs, "variants": variants, "priority": priority, "can": can, "origins": origins,
        "networks": networks, "rate": rate, "burst": burst, "most_waiting": most_waiting,
    }  # fmt: skip
    grant, limits = KeyGrant.model_validate(grant_changes(options)), limits_from_options(daily, None)
    if for_file:
        if limits:
            raise InvalidOption(f"--daily is kept in Redis: dspyq tenants limit {owner} --daily USD")
        with _place_for_key(output, as_json=as_json) as write:
            made = make_key()
            write(made.text)
        _show_for_file(made, table_of(made.sha256, owner, label, grant, expires_at), output, as_json=as_json)
        return
    with _place_for_key(output, as_json=as_json) as write, redis_errors("create the key"):
        made = _keys().create(owner, label, grant, expires_at=expires_at, daily_nano_usd=limits.get("daily"))
        write(made.text)
        record = _keys().find(made.id)
    _show_made(made, record, output, as_json=as_json)


@app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Keys of this tenant alone.")] = None,
    revoked: Annotated[bool, typer.Option("--revoked", help="Revoked keys too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the keys, by tenant.

    Example: `dspyq keys list --tenant acme`
    """
    with redis_errors("read the keys"):
        found = _keys().all(None if tenant is None else check_tenant(tenant))
    now = time.time()
    records = [record for record in found if revoked or record.status(now) != "revoked"]
    if as_json:
        print_json([_stated(record, now) for record in records])
        return
    if not records:
        console.print("There is no key; create one: dspyq keys create --tenant TENANT --name NAME")
        return
    rows = [
        [
            record.id,
            record.tenant,
            record.name,
            record.status(now),
            _listed(record.grant.programs, if_none="all"),
            _rate(record.grant),
            _day(record.expires_at) or "never",
            record.last_used_day or "never",
        ]
        for record in records
    ]
    print_table("Keys", ["id", "tenant", "name", "", "programs", "requests/s", "expires", "last used"], rows)


@app.command()
def show(
    key_id: KeyIdArgument,
    days: Annotated[int, typer.Option(min=1, max=400, help="How many days of usage, today included.")] = _USAGE_DAYS,
    as_json: JsonOption = False,
) -> None:
    """Show a key's rights and limits, and its requests by day.

    Example: `dspyq keys show 4fQ0aZ81kLmB`
    """
    wanted = read_id(key_id)
    today = date.fromisoformat(process_calendar().now().today)
    with redis_errors("read the key"):
        record = _keys().find(wanted)
        uses = _keys().usage(wanted, [(today - timedelta(days=number)).isoformat() for number in range(days)])
    stated = _stated(record, time.time())
    if as_json:
        print_json(stated | {"usage": [use._asdict() for use in uses]})
        return
    all_of = {"programs", "variants"} if "variant" in stated["can"] else {"programs"}
    rows = [[name, "all" if value is None and name in all_of else _shown(value)] for name, value in stated.items()]
    print_table(f"Key {wanted}", ["", ""], rows[1:])
    if uses:
        rows = [[use.day, f"{use.requests:,}", f"{use.refused:,}"] for use in uses]
        print_table("Usage", ["day", "requests", "refused"], rows)
    else:
        console.print(f"It was not used in the last {days} days.")


@app.command()
def revoke(key_id: KeyIdArgument, as_json: JsonOption = False) -> None:
    """Revoke a key for good: every server refuses it within a second. A leaked key can be pasted in place of its id.

    Example: `dspyq keys revoke 4fQ0aZ81kLmB`
    """
    wanted = read_id(key_id)
    with redis_errors("revoke the key"):
        record = _keys().revoke(wanted)
    if as_json:
        print_json(_stated(record, time.time()))
        return
    console.print(f"revoked: {record.name} of {record.tenant} ({wanted})")


@app.command()
def rotate(
    key_id: KeyIdArgument,
    grace: Annotated[
        str, typer.Option(help="How long the secret before stays good, as in 24h; 0m for not at all.")
    ] = "24h",
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a key a new secret, and print it once; its id, rights and usage stay.

    Example: `dspyq keys rotate 4fQ0aZ81kLmB --grace 1h`
    """
    wanted, grace_seconds = read_id(key_id), read_period(grace, "--grace")
    with _place_for_key(output, as_json=as_json) as write, redis_errors("rotate the key"):
        made = _keys().rotate(wanted, grace_seconds)
        write(made.text)
        record = _keys().find(wanted)
    _show_made(made, record, output, as_json=as_json)


@app.command()
def edit(
    key_id: KeyIdArgument,
    name: Annotated[str | None, typer.Option(help="Another name for people.")] = None,
    programs: ProgramsOption = None,
    variants: VariantsOption = None,
    priority: PriorityOption = None,
    can: CanOption = None,
    origins: OriginsOption = None,
    networks: NetworksOption = None,
    rate: RateOption = None,
    burst: BurstOption = None,
    most_waiting: WaitingOption = None,
    expires: ExpiresOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change rights, limits, name or expiry of a key; what is left out stays.

    Example: `dspyq keys edit 4fQ0aZ81kLmB --rate 50 --expires never`
    """
    wanted = read_id(key_id)
    options = {
        "programs": programs, "variants": variants, "priority": priority, "can": can, "origins": origins,
        "networks": networks, "rate": rate, "burst": burst, "most_waiting": most_waiting,
    }  # fmt: skip
    changes = grant_changes(options)
    other = {} if name is None else {"name": check_name(name)}
    if expires is not None:
        expires_at = expiry(expires)
        other["expires_at"] = "" if expires_at is None else repr(expires_at)
    if not changes and not other:
        raise InvalidOption("state what to change, as in --rate 50; dspyq keys edit --help lists it")
    with redis_errors("change the key"):
        record = _keys().edit(wanted, changes, other)
    if as_json:
        print_json(_stated(record, time.time()))
        return
    console.print(f"changed: {record.name} of {record.tenant} ({wanted})")


@app.command("hash")
def hash_key(as_json: JsonOption = False) -> None:
    """Print the hash of a key that is read from standard input, for `[serve.keys.<name>]` in the configuration file.

    Example: `dspyq keys hash < acme.key`
    """
    text = sys.stdin.readline().strip()
    if read_key_id(text) is None:
        raise InvalidOption("standard input holds no key: a key is dspyq_ and 62 letters, digits and an underscore")
    sha256 = sha256_of(text)
    print_json({"sha256": sha256}) if as_json else print_text(sha256)


@app.command()
def log(
    key_id: Annotated[str | None, typer.Option("--key", metavar="ID", help="Changes of this key alone.")] = None,
    most: Annotated[int, typer.Option(min=1, max=10_000, help="The most changes to show, the latest.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Show the changes of keys, with their times and operators.

    Example: `dspyq keys log --json`
    """
    with redis_errors("read the log of keys"):
        changes = _keys().log(None if key_id is None else read_id(key_id), most)
    if as_json:
        print_json([change._asdict() | {"at": _instant(change.at)} for change in changes])
        return
    if not changes:
        console.print("No key was created or changed.")
        return
    rows = [
        [_instant(each.at) or "", each.what, each.key_id, each.tenant, each.name, each.who, each.detail]
        for each in changes
    ]
    print_table("Changes of keys", ["at (UTC)", "", "key", "tenant", "name", "by", "what"], rows)


@contextmanager
def _place_for_key(output: Path | None, *, as_json: bool) -> Iterator[Callable[[str], object]]:
    """Yield a function that writes a key to its file; the place is there before the key is made.

    Raises:
        InvalidOption: If the key would go to no terminal, no file and no program.
        DspyqError: If the file is there already, or cannot be written.
    """
    if output is None:
        if not as_json and not sys.stdout.isatty():
            raise InvalidOption("a key is printed to a terminal only; use --output FILE, or --json for a program")
        yield lambda _: None
        return
    try:
        descriptor = open_private(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except OSError as error:
        raise DspyqError(f"--output: cannot make {output}: {error.strerror or type(error).__name__}") from None
    try:
        with os.fdopen(descriptor, "w") as file:
            yield lambda text: file.write(f"{text}\n")
    except BaseException:
        output.unlink(missing_ok=True)
        raise


def _show_made(made: IssuedKey, record: KeyRecord, output: Path | None, *, as_json: bool) -> None:
    if as_json:
        shown = {} if output else {"key": made.text}
        print_json({"id": made.id} | shown | _stated(record, time.time()))
        return
    console.print(f"key {made.id}: {record.name} of {record.tenant}")
    if output:
        console.print(f"written to {output}")
    else:
        print_text(made.text)
        console.print("Keep it now: only its hash is stored, and nothing shows it again.")


def _show_for_file(made: IssuedKey, table: str, output: Path | None, *, as_json: bool) -> None:
    if as_json:
        shown = {} if output else {"key": made.text}
        print_json({"id": made.id} | shown | {"sha256": made.sha256, "table": table})
        return
    print_text(f"written to {output}" if output else made.text)
    print_text(table, end="")


def _stated(record: KeyRecord, now: float) -> dict[str, Any]:
    """Return a key for machines, without its hashes."""
    return {
        "id": record.id,
        "tenant": record.tenant,
        "name": record.name,
        "status": record.status(now),
        **stated_grant(record.grant),
        "created_at": _instant(record.created_at),
        "created_by": record.created_by,
        "expires_at": _instant(record.expires_at),
        "previous_secret_until": _instant(record.previous_until) if record.previous_until > now else None,
        "revoked_at": _instant(record.revoked_at),
        "last_used_day": record.last_used_day or None,
    }


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _listed(names: tuple[str, ...] | None, *, if_none: str) -> str:
    return if_none if names is None else ", ".join(names)


def _rate(grant: KeyGrant) -> str:
    return "any number" if grant.rate is None else f"{grant.rate:g}"


def _instant(at: float | None) -> str | None:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if at else None


def _day(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).date().isoformat()


def _keys() -> ApiKeys:
    from dspyq.api_keys.store import ApiKeys

    return ApiKeys(money_client())
