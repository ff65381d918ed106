"""Lua scripts: each change of shared state is one script, and several run in one round trip."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import redis
from redis.exceptions import NoScriptError
from redis.typing import EncodableT

from dspyq.store.cluster import SlotMoved, slot_keys
from dspyq.store.script_text import Arguments, read_script
from dspyq.store.wire import RedisCommand, exchange, line_of, pack

Result = TypeVar("Result")
_NO_ARGUMENTS = Arguments()
#: Connections that may still lead to where a slot was: other threads give theirs back after it has moved.
_MOST_MOVES = 8
_PLACE = re.compile(rb"\0+")
_READS_ALONE = re.compile(r"#!lua flags=\S*no-writes")


class Script:
    """A Lua script, called by its hash.

    One whose first line states ``no-writes`` runs by EVALSHA_RO: a user of Redis may give it the keys that it may read.
    For EVALSHA, it must have the right to write whatever key it gives.

    It replaces redis-py's own class, whose client measures each call for telemetry: a third of a local round trip.

    Args:
        client: The client that runs it.
        text: Its text.
        arguments: Its arguments, which callers give by name.
        is_given_keys: Whether callers declare keys.

    Attributes:
        client: The client that runs it.
        script: Its text; redis-py's pipelines read it.
        sha: Its SHA-1 hash, as Redis computes it.
    """

    def __init__(
        self, client: redis.Redis, text: str, arguments: Arguments = _NO_ARGUMENTS, *, is_given_keys: bool = True
    ) -> None:
        self.script = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._command = "EVALSHA_RO" if _READS_ALONE.match(text) else "EVALSHA"
        self.client = client
        self._line = line_of(client)
        self._arguments = arguments
        self._own_keys = () if is_given_keys else slot_keys(client)

    def __call__(self, keys: Sequence[str] = (), /, **arguments: Any) -> Any:
        """Run it and return its reply."""
        return run_together(self.client, [self.step(_as_it_is, keys, **arguments)])[0]

    def step(self, read: Callable[[Any], Result], keys: Sequence[str] = (), /, **arguments: Any) -> Step[Result]:
        """Return a run of it as a step, to be run later.

        Args:
            read: Converts its reply to the result of the step.
            keys: Its keys.
            **arguments: Its arguments, by the names that its file states.

        Raises:
            TypeError: If one is missing or unknown.
        """
        ordered = self._arguments.put_in_order(arguments)
        keys = keys or self._own_keys
        return Step(self, (self._command, self.sha, len(keys), *keys, *ordered), read)

    def template(self, keys: Sequence[str] = (), /, **arguments: Any) -> bytes:
        """Return a run of it as it is sent, with ``%b`` in place of each key and argument that is made of NUL alone.

        What is put there by ``%`` must have as many bytes.
        """
        packed = pack(self.step(_as_it_is, keys, **arguments).command)
        return _PLACE.sub(b"%b", packed.replace(b"%", b"%%"))

    def run_packed(self, packed: bytes) -> Any:
        """Run what was made from a template, and return its reply.

        Raises:
            redis.RedisError: If Redis does not answer, or the error of the script.
        """
        (reply,) = _again(self.client, lambda: self._line.exchange(packed, 1))
        if isinstance(reply, NoScriptError):
            (reply,) = exchange(self.client, [("SCRIPT", "LOAD", self.script)])
            if not isinstance(reply, Exception):
                (reply,) = self._line.exchange(packed, 1)
        if isinstance(reply, redis.RedisError):
            raise reply
        return reply


class Step(NamedTuple, Generic[Result]):
    """A run of a script, or a plain command, to be run later.

    Attributes:
        script: The script; None for a plain command.
        command: The command to send.
        read: Converts the reply to the result of the step.
    """

    script: Script | None
    command: RedisCommand
    read: Callable[[Any], Result]


def command_step(read: Callable[[Any], Result], *command: EncodableT) -> Step[Result]:
    """Return a plain command as a step, to be run together with scripts."""
    return Step(None, command, read)


def read_hash(reply: Any) -> dict[bytes, bytes]:
    """Return what HGETALL replied: a dict in the protocol that redis-py 8 speaks, a list in that of redis-py 7."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def run_together(client: redis.Redis, steps: Iterable[Step[Any]]) -> list[Any]:
    """Run steps in one round trip, in order, and return what each returns.

    Scripts that Redis does not know run behind the others, so no step may depend on one before it. Other clients'
    commands may come in between. After a lost connection all steps run again, so a script must be safe
    to run twice.

    Raises:
        redis.RedisError: If Redis does not answer, or the first error of a script; the others ran all the same.
    """
    results = run_each(client, steps)
    for result in results:
        if isinstance(result, redis.RedisError):
            raise result
    return results


def at_their_servers(steps: Iterable[Step[Any]], default: redis.Redis) -> Iterator[tuple[redis.Redis, list[Step[Any]]]]:
    """Yield each server's steps, in order; the first step's server comes first.

    Args:
        steps: The steps; each runs at the server of its script.
        default: The server of plain commands.
    """
    apart: dict[int, tuple[redis.Redis, list[Step[Any]]]] = {}
    for step in steps:
        client = default if step.script is None else step.script.client
        apart.setdefault(id(client), (client, []))[1].append(step)
    yield from apart.values()


def run_each(client: redis.Redis, steps: Iterable[Step[Any]]) -> list[Any]:
    """Run steps as ``run_together`` does, and return the error of each that failed in its place.

    Steps that are made one by one are sent as they are made, and Redis runs the first meanwhile.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    made = steps if isinstance(steps, list) else []
    coming = iter(() if isinstance(steps, list) else steps)

    def run() -> list[Any]:
        if made:  # as a list, or by an attempt before
            made.extend(coming)
        return _run_all(client, [step.command for step in made] if made else _commands(coming, made), made)

    replies = _again(client, run)
    results: list[Any] = []  # no comprehension, which is a call of its own: this runs some times in each prediction
    for step, reply in zip(made, replies, strict=True):
        results.append(reply if isinstance(reply, Exception) else step.read(reply))
    return results


def _again(client: redis.Redis, run: Callable[[], Result]) -> Result:
    """Run what may run twice, and once more after a lost connection; further times while a cluster's slot moves."""
    for attempt in itertools.count(1):
        try:
            return run()
        except redis.ConnectionError as error:
            if attempt > 1 and not (isinstance(error, SlotMoved) and attempt <= _MOST_MOVES):
                raise
        client.ping()  # redis-py's own path, which reconnects
    raise AssertionError("unreachable")


def load_script(client: redis.Redis, package: str, name: str) -> Script:
    """Return a Lua script of a package, ``<package>/lua/<name>.lua``; see ``dspyq.store.script_text``."""
    script = read_script(package, name)
    return Script(client, script.text, script.arguments, is_given_keys=script.is_given_keys)


def _commands(coming: Iterable[Step[Any]], made: list[Step[Any]]) -> Iterator[RedisCommand]:
    """Yield the commands of steps, and add each step to those made."""
    for step in coming:
        made.append(step)
        yield step.command


def _run_all(client: redis.Redis, commands: Iterable[RedisCommand], steps: Sequence[Step[Any]]) -> list[Any]:
    """Run the commands of steps in one round trip and return their replies.

    Scripts that Redis does not know are all loaded, and then run in one round trip again: of those, a process that dies
    has run all or none.
    """
    replies = exchange(client, commands)
    for reply in replies:
        if isinstance(reply, NoScriptError):
            break
    else:
        return replies
    unknown = {
        position: step.script.script
        for position, (step, reply) in enumerate(zip(steps, replies, strict=True))
        if isinstance(reply, NoScriptError) and step.script is not None
    }
    if unknown:
        loaded = exchange(client, [("SCRIPT", "LOAD", text) for text in unknown.values()])
        again = exchange(client, [steps[position].command for position in unknown])
        for position, load, reply in zip(unknown, loaded, again, strict=True):
            # A script that the server rejects stays unknown; only the reply to its loading states the reason.
            replies[position] = load if isinstance(load, Exception) else reply
    return replies


def _as_it_is(reply: Any) -> Any:
    return reply
