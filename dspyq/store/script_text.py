"""Texts of Lua scripts: a script's file states its libraries, keys and arguments, and this puts them together.

A file opens with comments. Of these, Redis and callers get their names::

    -- Libraries: cache/aliases, delivery/jobs.
    -- Keys:
    --   alias           PREDICTION: of the question
    --   result?         RESULT: left out where answers live elsewhere
    -- Arguments:
    --   id              of the task
    --   delay:number    seconds until it may be taken
    --   periods[3]      three values
    --   batch?          of the batch that pays
    --   counts...       pairs of statistics field and amount

Each is a local of that name. A key marked with ``?`` may be missing and is nil then; an argument so marked is empty
then, or nil where it is a number. ``...`` is the list of all that follow. A library may state arguments too; they come
behind the script's own.

``store/common.lua`` is before every script. Of libraries, only the functions that a script calls are sent; of
``dspyq.store.keys``, only the names that it mentions. ``PUBLISH`` is the command by which it publishes.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping
from importlib.resources import files
from operator import itemgetter
from typing import Any, NamedTuple

from redis.typing import EncodableT

from dspyq.store.key_bases import key_base, money_base
from dspyq.store.keys import KEY_KINDS, LIFETIMES, key_starts
from dspyq.store.spines import NoSpine

_COMMON = "store/common"
_PUBLISH = "PUBLISH"
_OF_MONEY = frozenset(kind.name for kind in KEY_KINDS if kind.side == "money")
#: The most values that Lua puts on its stack here at once; it takes 8,000.
_MOST_UNPACKED = 1_000
_LIBRARIES = re.compile(r"^-- Libraries: (.+)\.$", re.MULTILINE)
_KEYS = re.compile(r"^-- Keys:\n((?:--  .*\n)+)", re.MULTILINE)
_KEY = re.compile(r"^--   ([a-z_]+)(\?|\.\.\.)? +([A-Z_]+): ", re.MULTILINE)
_ARGUMENTS = re.compile(r"^-- Arguments:\n((?:--  .*\n)+)", re.MULTILINE)
_ARGUMENT = re.compile(r"^--   ([a-z_]+)(:number)?(\?|\.\.\.|\[\d+\])? +\S", re.MULTILINE)
_COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)
_STRING_OR_COMMENT = re.compile(r"'[^'\n]*'|--.*")
_WORD = re.compile(r"\w+")
_FUNCTION = re.compile(r"^local function (\w+)\(.*?^end\n", re.MULTILINE | re.DOTALL)


class Argument(NamedTuple):
    """An argument of a script.

    Attributes:
        name: Its name.
        is_number: Whether the script gets a number.
        is_optional: Whether it may be left out.
        length: How many values it has; None for all that follow.
    """

    name: str
    is_number: bool = False
    is_optional: bool = False
    length: int | None = 1


class Arguments:
    """The arguments of a script, in their order.

    Args:
        declared: Optional ones last, and behind them one of any number of values.
    """

    def __init__(self, declared: tuple[Argument, ...] = ()) -> None:
        self.declared = declared
        plain = list(itertools.takewhile(lambda each: each.length == 1 and not each.is_optional, declared))
        self._others = declared[len(plain) :]
        # Of a single name, itemgetter returns the value itself.
        self._get_plain = itemgetter(*(each.name for each in plain)) if len(plain) > 1 else None
        if self._get_plain is None:
            self._others = declared
        self._plain_count = len(declared) - len(self._others)

    def put_in_order(self, given: Mapping[str, Any]) -> tuple[EncodableT, ...]:
        """Return values in the order of the script's arguments.

        Raises:
            TypeError: If one is missing or unknown, or has another number of values.
        """
        try:
            ordered: tuple[EncodableT, ...] = self._get_plain(given) if self._get_plain else ()
        except KeyError as error:
            raise TypeError(f"the script needs the argument {error.args[0]}") from None
        used = self._plain_count
        left_out: tuple[EncodableT, ...] = ()  # sent where something follows
        for argument in self._others:
            if argument.name in given:
                used += 1
                if values := _values(argument, given[argument.name]):
                    ordered += left_out + values
                    left_out = ()
            elif argument.is_optional:
                left_out += ("",)
            else:
                raise TypeError(f"the script needs the argument {argument.name}")
        if used != len(given):
            unknown = given.keys() - {argument.name for argument in self.declared}
            raise TypeError(f"the script has no argument {', '.join(sorted(unknown))}")
        return ordered


class ScriptText(NamedTuple):
    """A script as it is loaded.

    Attributes:
        text: Its text.
        arguments: Its arguments.
        key_kinds: The kinds of keys that it is given or names, as in ``dspyq.store.keys``.
        is_given_keys: Whether callers declare any.
    """

    text: str
    arguments: Arguments
    key_kinds: frozenset[str]
    is_given_keys: bool


class ScriptFile(NamedTuple):
    """A script as its files state it, for any configuration.

    Attributes:
        first: Its first line, if that begins with ``#!``.
        body: Its code behind its libraries.
        words: The names and words of that code.
        arguments: Its arguments.
        key_kinds: The kinds of keys that it is given or names.
        is_given_keys: Whether callers declare any.
    """

    first: str
    body: str
    words: frozenset[str]
    arguments: Arguments
    key_kinds: frozenset[str]
    is_given_keys: bool


def read_script(package: str, name: str) -> ScriptText:
    """Return a script of a package, ``<package>/lua/<name>.lua``, behind its libraries.

    A first line that begins with ``#!`` stays the first.
    """
    found = read_script_file(package, name)
    constants = _constants(found.words, found.key_kinds)
    locals_ = f"local {', '.join(constants)} = {', '.join(constants.values())}\n" if constants else ""
    text = f"{found.first}\n{locals_}{found.body}".lstrip("\n")
    return ScriptText(text, found.arguments, found.key_kinds, found.is_given_keys)


@functools.cache
def read_script_file(package: str, name: str) -> ScriptFile:
    """Return what a script's file and its libraries state, read once: each client loads its scripts anew."""
    script = (files(package) / "lua" / f"{name}.lua").read_text()
    first, script = script.split("\n", 1) if script.startswith("#!") else ("", script)
    declared: list[Argument] = []
    own, libraries = _body(script, declared), _libraries_of(script)
    body = _without_unused("".join(_body(text, declared) for text in libraries), own)
    words = _words(body)
    given = {kind for text in (*libraries, script) for _, _, kind in _stated(_KEYS, _KEY, text)}
    kinds = given | {kind.name for kind in KEY_KINDS if kind.name in words}
    return ScriptFile(
        first, body, frozenset(words), Arguments(tuple(declared)), frozenset(kinds), is_given_keys=bool(given)
    )


def _constants(words: frozenset[str], kinds: frozenset[str]) -> dict[str, str]:
    """Return the locals that code mentions, each with its value in Lua."""
    starts = key_starts()
    if missing := words & {kind.name for kind in KEY_KINDS} - starts.keys():
        raise NoSpine(f"the script names keys of one spine ({', '.join(sorted(missing))}), and none is active")
    found = {name: f"'{start}'" for name, start in starts.items() if name in words}
    found |= {name: str(value) for name, value in LIFETIMES.items() if name in words}
    if _PUBLISH in words:
        base = money_base() if kinds <= _OF_MONEY else key_base()
        found[_PUBLISH] = "'SPUBLISH'" if base.startswith("{") else "'PUBLISH'"  # of a slot of a cluster
    return found


def _libraries_of(script: str) -> list[str]:
    """Return the texts of all libraries of a script, each behind those that it needs itself."""
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        if name not in texts:
            room, _, file = name.partition("/")
            text = (files(f"dspyq.{room}") / "lua" / f"{file}.lua").read_text()
            for needed in _names_of_libraries(text):
                add(needed)
            texts[name] = text

    for name in (_COMMON, *_names_of_libraries(script)):
        add(name)
    return list(texts.values())


def _names_of_libraries(text: str) -> list[str]:
    found = _LIBRARIES.search(text)
    return found[1].split(", ") if found else []


def _body(text: str, declared: list[Argument]) -> str:
    """Return a file's code behind the locals that it states; its arguments are added to those declared before."""
    keys = [(name, mark) for name, mark, _ in _stated(_KEYS, _KEY, text)]
    names = [name for name, _ in keys]
    values = ["KEYS" if mark == "..." else f"KEYS[{number}]" for number, (_, mark) in enumerate(keys, start=1)]
    for name, number, mark in _stated(_ARGUMENTS, _ARGUMENT, text):
        length = int(mark[1:-1]) if mark.startswith("[") else None if mark == "..." else 1
        argument = Argument(name, bool(number), mark == "?", length)
        names.append(name)
        values.append(_in_lua(argument, first=1 + sum(each.length or 0 for each in declared)))
        declared.append(argument)
    given = f"local {', '.join(names)} = {', '.join(values)}\n" if names else ""
    return given + _COMMENT.sub("", text)


def _stated(block: re.Pattern[str], line: re.Pattern[str], text: str) -> list[tuple[str, str, str]]:
    found = block.search(text)
    return line.findall(found[1]) if found else []


def _in_lua(argument: Argument, first: int) -> str:
    if argument.length is None:
        return f"#ARGV < {_MOST_UNPACKED} and {{ unpack(ARGV, {first}) }} or all_from({first})"
    if argument.length > 1:
        return f"{{ unpack(ARGV, {first}, {first + argument.length - 1}) }}"
    if argument.is_number:
        return f"tonumber(ARGV[{first}])"
    return f"ARGV[{first}] or ''" if argument.is_optional else f"ARGV[{first}]"


def _without_unused(libraries: str, script: str) -> str:
    """Return libraries and script in one, without the functions that nothing behind them calls."""
    kept, end = [script], len(libraries)
    words = _words(script)  # of all that is kept
    for function in reversed(list(_FUNCTION.finditer(libraries))):
        between = libraries[function.end() : end]
        kept.append(between)
        words |= _words(between)
        if function[1] in words:
            kept.append(function[0])
            words |= _words(function[0])
        end = function.start()
    return libraries[:end] + "".join(reversed(kept))


def _words(code: str) -> set[str]:
    """Return the names and words of Lua code, without those in strings and comments."""
    return set(_WORD.findall(_STRING_OR_COMMENT.sub("", code)))


def _values(argument: Argument, given: Any) -> tuple[EncodableT, ...]:
    if argument.length == 1:
        return (given,)
    values = tuple(given)
    if argument.length is not None and len(values) != argument.length:
        raise TypeError(f"the argument {argument.name} has {argument.length} values, not {len(values)}")
    return values
