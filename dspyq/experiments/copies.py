"""Copies of experiments' states beside the questions, where the Redis of money is another one than theirs.

A state has its home in the Redis of money, where it changes. Claims are fenced by the copy on their own spine, which is
written after the home: of two states the newer one stays. A spine that was away gets it from the referee's next look,
or from the first call that is refused there by an older state. With one Redis home and copy are one key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import redis

from dspyq.config.settings import get_settings
from dspyq.core.runtime import per_runtime
from dspyq.core.tolerated import tolerate
from dspyq.store.clients import jobs_client, money_client
from dspyq.store.key_bases import bases
from dspyq.store.keys import experiment_home_key, experiment_state_key, invalidations_channel
from dspyq.store.scripts import Script, load_script, read_hash
from dspyq.store.spines import each_spine, jobs_url, on_each_spine

_Fields = Mapping[bytes, bytes]


def announcement_of(program: str, version: int, state: bytes) -> bytes:
    """Return what is published of a state."""
    return f"~{program} {version} ".encode() + state


def is_behind(version: str, known: int) -> bool:
    """Return True if a copy's version, empty for none, is older than the known one, so that it may miss a change."""
    is_older = not version or (version.isdecimal() and int(version) < known)
    return is_older and has_copies()


def has_copies() -> bool:
    """Return True if states are copied; False where one Redis holds all."""
    settings = get_settings()
    return len(settings.spine_urls) > 1 or not _is_home()


def channel_of_home() -> str:
    """Return the channel on which a change is announced as it is made; empty where no spine is in the home's Redis."""
    return next(filter(None, on_each_spine(lambda: invalidations_channel() if _is_home() else "")), "")


def copy_to_spines(program: str) -> None:
    """Copy a state that has changed; a spine that does not answer gets it later.

    Raises:
        redis.RedisError: If the Redis of money does not answer.
    """
    home = _read_home(program) if has_copies() else {}
    for _ in _spines_with_copies():
        try:
            _copy(program, home)
        except redis.RedisError as error:
            tolerate("spine_away", error)


def repair_copies(programs: Iterable[str]) -> None:
    """Copy the states that spines have missed, and restore those that the home has lost. Two round trips a spine.

    Raises:
        redis.RedisError: If the Redis of money does not answer.
    """
    names, away = list(programs), _spines_away()
    for spine in _spines_with_copies():
        try:
            copies = _changes(jobs_client(), names, experiment_state_key)
            homes = _changes(money_client(), names, experiment_home_key)
            for program in names:
                if copies[program] != homes[program]:
                    _repair(program)
            away.discard(spine)
        except redis.RedisError as error:
            if spine not in away:  # once for each time that it is away: the referee comes by every ten seconds
                tolerate("spine_away", error)
            away.add(spine)


def restore_home(program: str) -> bool:
    """Write a home that is gone again from its copies; return True if there is one then.

    Raises:
        redis.RedisError: If the Redis of money does not answer.
    """
    for _ in _spines_with_copies():
        try:
            _repair(program)
        except redis.RedisError as error:
            tolerate("spine_away", error)
    return has_copies() and bool(_read_home(program))


def _repair(program: str) -> None:
    """Let the newer one of the home and the active spine's copy be both.

    The home is written before any copy. So a copy that was read first and is newer is of a change that the home has
    lost, as after a failover to a replica that did not have it yet.
    """
    copy = read_hash(jobs_client().hgetall(experiment_state_key(program)))
    home = _read_home(program)
    if _version(copy) > _version(home):
        script = load_script(money_client(), "dspyq.experiments", "copy_state")
        _write(script, experiment_home_key(program), copy, b"")
    else:
        _copy(program, home)


def _spines_with_copies() -> Iterator[int]:
    if has_copies():
        for spine in each_spine():
            if not _is_home():
                yield spine.number if spine else 0


@per_runtime
def _spines_away() -> set[int]:
    return set()


def _changes(client: redis.Redis, programs: Iterable[str], key_of: Callable[[str], str]) -> dict[str, list[bytes]]:
    """Return the version and the change of each program's state."""
    names = list(programs)
    reading = client.pipeline(transaction=False)
    for program in names:
        reading.hmget(key_of(program), "version", "change")
    return dict(zip(names, reading.execute(), strict=True))


def latest_of(program: str, version: str, stored: bytes) -> tuple[str, bytes]:
    """Return the state to place calls of the active spine by, and copy it there if the spine has missed it.

    Args:
        program: The program's name.
        version: Of the spine's state; empty for none.
        stored: That state.
    """
    try:
        home = _read_home(program)
        if _version(home) > int(version or 0):
            _copy(program, home)
            return home[b"version"].decode(), home[b"state"]
    except (redis.RedisError, ValueError) as error:  # the spine's own state is served until the home answers
        tolerate("experiment_state", error)
    return version, stored


def _copy(program: str, home: _Fields) -> None:
    if not home or _is_home():
        return
    script = load_script(jobs_client(), "dspyq.experiments", "copy_state")
    announcement = announcement_of(program, _version(home), home.get(b"state", b""))
    _write(script, experiment_state_key(program), home, announcement)


def _write(script: Script, key: str, fields: _Fields, announcement: bytes) -> bool:
    return bool(
        script(
            [key],
            version=_version(fields),
            change=fields.get(b"change", b""),
            announcement=announcement,
            fields=[part for field in fields.items() for part in field],
        )
    )


def _read_home(program: str) -> _Fields:
    return read_hash(money_client().hgetall(experiment_home_key(program)))


def _version(fields: _Fields) -> int:
    """Return a state's version; 0 for none, or one that cannot be read."""
    try:
        return int(fields.get(b"version", b"0"))
    except ValueError:
        return 0


def _is_home() -> bool:
    """Return True if the active spine's Redis is the home, under the same keys."""
    return bases().is_one and (money_client() is jobs_client() or get_settings().home_url == jobs_url())
