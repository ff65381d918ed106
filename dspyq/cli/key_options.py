"""Options of ``dspyq keys``, and what they change of a key's rights and limits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from dspyq.api_keys.form import id_in
from dspyq.config.key_grants import ALL_RIGHTS, KeyGrant, matching
from dspyq.config.setting_faults import nearest_hint
from dspyq.config.settings import get_settings
from dspyq.console.periods import read_period
from dspyq.errors import InvalidOption

KeyIdArgument = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `dspyq keys list` shows it.")]
ProgramsOption = Annotated[
    str | None, typer.Option("--programs", help="Programs that it may ask, as in `qa,intake-*`; by default all, `*`.")
]
VariantsOption = Annotated[
    str | None, typer.Option("--variants", help="Variants that it may force, as in `control`; by default none.")
]
PriorityOption = Annotated[
    int | None, typer.Option("--priority", min=0, max=9, help="Its most urgent priority, 0 (most urgent) to 9.")
]
CanOption = Annotated[
    str | None,
    typer.Option(
        "--can",
        help=f"What it may do, of {', '.join(ALL_RIGHTS)}; by default all but refresh and variant.",
    ),
]
OriginsOption = Annotated[
    str | None, typer.Option("--origins", help="Origins of pages that may use it, as in `https://app.example.com`.")
]
NetworksOption = Annotated[
    str | None, typer.Option("--networks", help="Networks of clients that may use it, as in `10.0.0.0/8`.")
]
RateOption = Annotated[
    str | None, typer.Option("--rate", help="Requests a second, over all servers, or none for no limit.")
]
BurstOption = Annotated[
    str | None, typer.Option("--burst", help="How many of those may come at once; by default those of a second.")
]
WaitingOption = Annotated[
    str | None, typer.Option("--most-waiting", help="The most of its requests that wait in a server process, or none.")
]
ExpiresOption = Annotated[
    str | None,
    typer.Option("--expires", help="When it expires: after `90d`, `12h` or `30m`, on `2027-01-31`, or never."),
]

_ALL, _NONE, _NEVER = "*", "none", "never"


def grant_changes(options: Mapping[str, str | int | None]) -> dict[str, Any]:
    """Return what options state of a key's rights and limits, by the names of ``KeyGrant``.

    Args:
        options: The options; None for those that are left out.

    Raises:
        InvalidOption: If one cannot be so, or names a program or variant that there is not.
    """
    stated = {name: _value(name, option) for name, option in options.items() if option is not None}
    try:
        KeyGrant.model_validate(stated)
    except ValidationError as error:
        raise InvalidOption(_fault(error)) from None
    programs = get_settings().programs
    variants = {name for program in programs.values() for name in program.variants}
    for kind, names in (("program", set(programs)), ("variant", variants)):
        for pattern in stated.get(f"{kind}s") or ():
            if not matching([pattern], names):
                raise InvalidOption(f"--{kind}s: there is no {kind} {pattern!r}{nearest_hint(pattern, sorted(names))}")
    return stated


def expiry(stated: str | None) -> float | None:
    """Return when a key expires, in seconds since 1970; None for never.

    Raises:
        InvalidOption: If it is no period and no date, or has passed.
    """
    if stated is None or stated == _NEVER:
        return None
    now = time.time()
    try:
        expires_at = datetime.fromisoformat(stated).replace(tzinfo=UTC).timestamp()
    except ValueError:
        expires_at = round(now + read_period(stated, "--expires"), 3)
    if expires_at <= now:
        raise InvalidOption(f"--expires: {stated} has passed")
    return expires_at


def read_id(text: str) -> str:
    """Return the id of a key, also from a key that was pasted.

    Raises:
        InvalidOption: If it is neither.
    """
    found = id_in(text)
    if found is None:
        shown = text if len(text) <= 2 * len("no-such-name") else f"{text[:8]}..."
        raise InvalidOption(f"{shown!r} is no id of a key: that has 12 letters and digits; see dspyq keys list")
    return found


def check_name(name: str) -> str:
    """Return a key's name for people.

    Raises:
        InvalidOption: If it is none.
    """
    if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise InvalidOption(f"--name: state 1 to {_LONGEST_NAME} characters for people, as in ci")
    return name


_LONGEST_NAME = 64


def _value(name: str, option: str | int) -> Any:
    if isinstance(option, int):
        return option
    if name in ("rate", "burst", "most_waiting"):
        return None if option == _NONE else option
    if name in ("programs", "variants"):
        return None if option == _ALL else tuple(_parts(option))
    return () if option == _NONE else tuple(_parts(option))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _fault(error: ValidationError) -> str:
    details = error.errors()[0]
    option = str(details["loc"][0]).replace("_", "-")
    message = details["msg"].removeprefix("Value error, ")
    return f"--{option}: {message[0].lower()}{message[1:]}, not {details['input']!r}"
