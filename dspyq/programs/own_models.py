"""The models that a program or its adapter holds: each is replaced by one of ``[models]``, or refused at start.

Calls of a model without a table would bypass breaker, rate limit, budget and books.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dspy

from dspyq.errors import ConfigurationError

#: Limit of the search: a program may hold large or cyclic data.
_MOST_LOOKED_AT = 20_000
#: Endings that a short name of an adapter's attribute may omit.
_ENDINGS = ("", "_model", "_lm")
_PLAIN = (str, bytes, int, float, complex, type(None), type, types.ModuleType)


@dataclass(frozen=True, slots=True)
class HeldModel:
    """A model that was found.

    Attributes:
        path: Path of its predictor or attribute.
        replace: Function that replaces it; None if it cannot be replaced.
    """

    path: str
    replace: Callable[[dspy.LM], None] | None


def assign_models(
    setting: str, module: dspy.Module, adapter: dspy.Adapter, lms: Mapping[str, dspy.LM], *, checks_names: bool = True
) -> None:
    """Replace the models named in ``[programs.<name>.models]``.

    Args:
        setting: The program's table, ``programs.<name>``.
        module: The program; its predictors have the variant's model already, where they had none.
        adapter: Its adapter.
        lms: The models by the paths that the table names.
        checks_names: Whether each of them must be a path of this program; not where variants have other ones.

    Raises:
        ConfigurationError: If a model is held that no key names, or a key names nothing.
    """
    predictors = predictor_paths(module)
    held = [(module, one) for one in find_models(module)] + [(adapter, one) for one in find_models(adapter)]
    paths = model_paths(module, adapter)
    faults = [
        f"{setting}.models.{name}: there is no predictor and no model of this path; there is {', '.join(sorted(paths))}"
        for name in (find_unmatched(lms, paths) if checks_names else ())
    ]
    for owner, one in held:
        owned = f"{type(owner).__name__} holds a model of its own, {one.path}, whose calls would pass the guards by"
        lm = _lm_of(lms, one.path)
        if one.replace is None:
            faults.append(f"{setting}: {owned}: hold it as an attribute, and name it in [{setting}.models]")
        elif lm is None:
            faults.append(
                f'{setting}: {owned}: name what it runs on, [{setting}.models] "{one.path}" = "<a table of [models]>", '
                "or leave it out"
            )
        else:
            one.replace(lm)
    for path, predictor in predictors.items():
        predictor.lm = _lm_of(lms, path) or predictor.lm
    if faults:
        raise ConfigurationError(faults)


def model_paths(module: dspy.Module, adapter: dspy.Adapter) -> set[str]:
    """Return the paths of all that may have a model of its own: predictors, and models that are held."""
    held = [*find_models(module), *find_models(adapter)]
    return predictor_paths(module).keys() | {one.path for one in held}


def find_unmatched(names: Iterable[str], paths: Iterable[str]) -> list[str]:
    """Return those keys of ``[programs.<name>.models]`` that name none of the paths."""
    known = list(paths)
    return [name for name in names if not any(_names(name, path) for path in known)]


def _names(name: str, path: str) -> bool:
    """Return True if a key of ``[programs.<name>.models]`` names this path or one above it."""
    return path.startswith(f"{name}.") or any(path == name + ending for ending in _ENDINGS)


def _lm_of(lms: Mapping[str, dspy.LM], path: str) -> dspy.LM | None:
    """Return the model of the longest key that names a path; None if no key does."""
    meant = [name for name in lms if _names(name, path)]
    return lms[max(meant, key=len)] if meant else None


def predictor_paths(module: dspy.Module) -> dict[str, dspy.Predict]:
    """Return a program's predictors by path, including compiled ones."""
    return {_path(path): part for path, part in module.named_sub_modules(dspy.Predict)}


def find_models(root: Any) -> list[HeldModel]:
    """Return the models found in an object: in attributes, lists, tools and closures."""
    of_predictors = {id(part): path for path, part in predictor_paths(root).items()} if _is_module(root) else {}
    found: dict[str, HeldModel] = {}
    seen: dict[int, Any] = {}  # kept alive, so that no id is used again meanwhile
    waiting: list[tuple[str, Any]] = [("", root)]
    while waiting and len(seen) < _MOST_LOOKED_AT:
        path, holder = waiting.pop()
        if id(holder) in seen:
            continue
        seen[id(holder)] = holder
        for part, value, replace in _parts(holder):
            where = f"{path}{part}".lstrip(".")
            if isinstance(value, dspy.BaseLM):
                if part == ".lm" and id(holder) in of_predictors:
                    where = of_predictors[id(holder)]
                found.setdefault(where, HeldModel(where, replace))
            elif not isinstance(value, _PLAIN):
                waiting.append((where, value))
    return sorted(found.values(), key=lambda one: one.path)


def _parts(holder: Any) -> Iterator[tuple[str, Any, Callable[[Any], None] | None]]:
    """Yield each part of an object: its name, its value, and a function that replaces it."""
    match holder:
        case dict():
            yield from (
                (f"[{key!r}]", value, functools.partial(holder.__setitem__, key)) for key, value in holder.items()
            )
        case list():
            yield from (
                (f"[{at}]", value, functools.partial(holder.__setitem__, at)) for at, value in enumerate(holder)
            )
        case tuple() | set() | frozenset():
            yield from ((f"[{at}]", value, None) for at, value in enumerate(holder))
        case functools.partial():
            yield from (
                (".func", holder.func, None),
                (".args", holder.args, None),
                (".keywords", holder.keywords, None),
            )
        case types.MethodType():
            yield from (("", holder.__self__, None), ("", holder.__func__, None))
        case types.FunctionType():
            yield from _of_function(holder)
        case _:
            yield from _of_object(holder)


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any, None]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f".{name}", cell.cell_contents, None
        except ValueError:  # not filled yet
            continue
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, dspy.BaseLM):
            yield f".{name}", value, None
    yield from ((".__defaults__", value, None) for value in function.__defaults__ or ())


def _of_object(holder: Any) -> Iterator[tuple[str, Any, Callable[[Any], None] | None]]:
    kind = type(holder)
    if isinstance(holder, dspy.BaseLM | dspy.Example | type(dspy.settings)) or _is_of_python(kind):
        return
    attributes = getattr(holder, "__dict__", None)
    if isinstance(attributes, dict):
        yield from (
            (f".{name}", value, functools.partial(setattr, holder, name)) for name, value in list(attributes.items())
        )
    if isinstance(holder, dspy.Module | dspy.Adapter) and not kind.__module__.startswith("dspy."):
        own = [one for one in kind.__mro__ if not one.__module__.startswith("dspy.")]
        for name, value in ((name, value) for one in own for name, value in vars(one).items()):
            if isinstance(value, types.FunctionType):
                yield "", value, None
            elif isinstance(value, dspy.BaseLM):
                yield f".{name}", value, None


def _is_of_python(kind: type) -> bool:
    """Return True for an object of Python, such as a logger or a lock, that leads to the whole process."""
    return kind.__module__.partition(".")[0] in sys.stdlib_module_names


def _is_module(holder: Any) -> bool:
    return isinstance(holder, dspy.Module)


def _path(path: str) -> str:
    return path.removeprefix("self.").lstrip(".")
