"""``dspyq encryption``: new keys, envelopes in Redis by their key, and the rotation of keys."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import redis
import typer
from rich.progress import Progress, TextColumn

from dspyq.config.settings import get_settings
from dspyq.console.output import JsonOption, console, print_json, print_table, print_text
from dspyq.errors import ConfigurationError
from dspyq.sealing.keyring import Keyring, new_key_line

app = typer.Typer(
    help="Look after the keys that seal content in Redis. A change of the keys file counts within a second.",
    no_args_is_help=True,
)


@app.command("new-key")
def new_key(
    index: Annotated[
        bool, typer.Option("--index", help="A key that questions are hashed with; another one empties the cache.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print a line with a new key for the file of `encryption.keys_file`, whose first `seal` line seals.

    Nothing is stored: who has the line has the key. To begin, the file needs one of each kind.

    Example: `(umask 077; dspyq encryption new-key; dspyq encryption new-key --index) > keys`
    """
    line = new_key_line("index" if index else "seal")
    if as_json:
        use, key_id, key = line.split()
        print_json({"use": use, "id": key_id, "key": key})
    else:
        print_text(line)


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Count what is stored in Redis by the key it is sealed with, and what is not sealed.

    It reads each key of Redis once. Files of batches are on their own machines, and not counted.

    Example: `dspyq encryption status --json`
    """
    ring = _ring()
    counts = _counts(is_quiet=as_json)
    if as_json:
        stated = [{"id": each, "use": _use(each, ring), "envelopes": counts[each]} for each in ring.ids]
        others = {"tenants": _of_tenants(counts), "unknown": _unknown(counts, ring), "plain": counts[_PLAIN]}
        print_json({"keys": stated, "index": list(ring.index), **others})
        return
    rows = [[each, _use(each, ring), f"{counts[each]:,}"] for each in ring.ids]
    rows += [[each, "unknown here", f"{number:,}"] for each, number in _unknown(counts, ring).items()]
    rows.append(["", "keys of tenants", f"{_of_tenants(counts):,}"])
    rows.append(["", "plain text", f"{counts[_PLAIN]:,}"])
    print_table("Envelopes in Redis", ["key", "", "envelopes"], rows)
    print_text(f"questions are hashed with {next(iter(ring.index))}")


@app.command()
def rotate(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; code 1 while an old key is needed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Seal tenants' keys under the newest key, and state which old keys can be removed; with `--check` state it alone.

    To rotate: add a line of `new-key` behind the others on every machine; move it to the top everywhere; run this.
    Once the longest cache_ttl_seconds has passed and this command names the old key, remove its line. Batches that
    are not finished yet may need it too: their files are not looked at.

    Example: `dspyq encryption rotate --check --json`
    """
    ring = _ring()
    if not check:
        _seal_tenants_again()
    counts = _counts(is_quiet=as_json)
    old = ring.ids[1:]
    needed = [each for each in old if counts[each]]
    removable = [each for each in old if not counts[each]]
    if as_json:
        envelopes = {each: counts[each] for each in needed}
        print_json({"seals": ring.sealing_id, "removable": removable, "needed": envelopes})
    else:
        print_text(f"{ring.sealing_id} seals")
        for each in removable:
            print_text(f"{each} can be removed: no envelope in Redis names it; finish older batches first")
        for each in needed:
            print_text(f"{each} is needed by {counts[each]:,} envelopes in Redis")
        if not old:
            print_text("there is no old key")
    if check and needed:
        raise typer.Exit(1)


_PLAIN = "plain"


def _ring() -> Keyring:
    from dspyq.store.seal_keys import process_keys

    if not get_settings().encryption.is_on:
        raise ConfigurationError("nothing is sealed: add [encryption] with keys_file to the configuration")
    return process_keys().ring


def _seal_tenants_again() -> None:
    from dspyq.store.clients import redis_errors
    from dspyq.store.sealed import process_tenant_keys

    with redis_errors("seal the tenants' keys"):
        process_tenant_keys().seal_again()


def _counts(*, is_quiet: bool) -> Counter[str]:
    from dspyq.store.clients import answers_client, jobs_client, money_client, redis_errors
    from dspyq.store.envelope_counts import count_envelopes
    from dspyq.store.spines import each_spine

    settings = get_settings()
    columns = TextColumn("looking at keys of Redis"), TextColumn("{task.completed:,.0f}")
    with (
        Progress(*columns, console=console, transient=True, disable=is_quiet or not console.is_terminal) as progress,
        redis_errors("count the envelopes"),
    ):
        bar = progress.add_task("keys", total=None)

        def count(*clients: redis.Redis) -> Counter[str]:
            return count_envelopes(list(clients), lambda number: progress.advance(bar, number))

        counts: Counter[str] = Counter()
        for _ in each_spine():
            counts += count(jobs_client()) if settings.is_one_redis else count(jobs_client(), answers_client())
        if settings.is_money_apart and settings.home_url not in settings.spine_urls:
            counts += count(money_client())
        return counts


def _use(key_id: str, ring: Keyring) -> str:
    return "seals" if key_id == ring.sealing_id else "opens"


def _unknown(counts: Counter[str], ring: Keyring) -> dict[str, int]:
    """Return the counts of keys that this process has not; those of tenants are in Redis."""
    others = sorted(each for each in counts if each not in {*ring.ids, _PLAIN} and not each.startswith("t"))
    return {each: counts[each] for each in others}


def _of_tenants(counts: Counter[str]) -> int:
    return sum(number for each, number in counts.items() if each.startswith("t"))
