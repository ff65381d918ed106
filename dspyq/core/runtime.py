"""Runtimes: what a process has for one configuration, from its settings to its connections.

A process has one of its own, the default, and may have others beside it. The rooms above add what belongs to a
configuration by decorating the function that makes it::

    @per_runtime
    def jobs_client() -> redis.Redis: ...

Each runtime then makes that value once, at its first use. A forked child drops its parent's values, unless their
function states otherwise.

A runtime may have parts, such as one for each of several Redis servers. A part makes those values by itself that are
stated to be of parts, and has all others from its whole.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast, overload
from weakref import WeakSet

Given = ParamSpec("Given")
Value = TypeVar("Value")
Method = TypeVar("Method", bound=Callable[..., Any])
_Hook = Callable[[Any], object]


@dataclass(frozen=True)
class _Fate:
    """Rules for a value when its process forks and when its runtime closes, and for parts of a runtime."""

    is_kept: bool
    is_of_part: bool
    renew: _Hook | None
    close: _Hook | None

    @property
    def crosses_forks(self) -> bool:
        """True for a value that a forked child keeps."""
        return self.is_kept or self.renew is not None


class Runtime:
    """The values of one configuration.

    Attributes:
        number: Its number in this process; the default's is 0.
        whole: The runtime that it is a part of; itself for one that is no part.
        values: The values, by the names of the functions that make them. ``per_runtime`` alone writes here.
    """

    __slots__ = ("__weakref__", "_lock", "_set_aside", "number", "values", "whole")

    def __init__(self, part_of: Runtime | None = None) -> None:
        self.number = next(_numbers)
        self.whole: Runtime = self if part_of is None else part_of.whole
        self.values: dict[str, Any] = {}
        self._set_aside: list[dict[str, Any]] = []
        self._lock = threading.RLock()
        with _registration:
            _runtimes.add(self)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Use it within a block, in this thread or task and the tasks begun there; other threads are not affected."""
        token = _current.set(self)
        expected: tuple[type[Exception], ...] = ()
        try:
            yield
        except GeneratorExit:  # a coroutine that is no longer awaited may be closed in any context
            expected = (ValueError,)
            raise
        finally:
            with suppress(*expected):
                _current.reset(token)

    def bind(self, call: Callable[Given, Value]) -> Callable[Given, Value]:
        """Return a call as one that uses this runtime, whichever thread makes it."""

        @functools.wraps(call)
        def bound(*args: Given.args, **kwargs: Given.kwargs) -> Value:
            with self.active():
                return call(*args, **kwargs)

        return bound

    def put(self, accessor: Callable[[], Value], value: Value) -> None:
        """Have a function that is ``per_runtime`` return this value."""
        owner = self._owner(_name(accessor))
        with owner._lock:  # noqa: SLF001 - of this class
            owner.values[_name(accessor)] = value

    def peek(self, accessor: Callable[[], Value]) -> Value | None:
        """Return the value of a function that is ``per_runtime``; None where it has not been made."""
        value: Value | None = self._owner(_name(accessor)).values.get(_name(accessor))
        return value

    def forget(self, accessor: Callable[[], object]) -> None:
        """Have the value made anew at its next use."""
        owner = self._owner(_name(accessor))
        with owner._lock:  # noqa: SLF001 - of this class
            owner.values.pop(_name(accessor), None)

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """Begin a block without any value, in all threads; afterwards the values from before are back."""
        with self._lock:
            self._set_aside.append(self.values)
            self.values = {}
        try:
            yield
        finally:
            self.close()
            with self._lock:
                self.values = self._set_aside.pop()

    def close(self) -> None:
        """Close what the values hold open, the last made first; whatever is used again is made anew."""
        with self._lock:
            closing, self.values = self.values, {n: v for n, v in self.values.items() if _fates[n].is_kept}
        with self.active(), ExitStack() as closers:
            for name, value in closing.items():
                if value is not None and (close := _fates[name].close) is not None:
                    closers.callback(close, value)

    def make(self, name: str, make: Callable[[], Value]) -> Value:
        """Return a value, made now unless another thread has just done so."""
        owner = self._owner(name)
        if owner is not self:
            try:
                found: Value = owner.values[name]
            except KeyError:
                with owner.active():
                    found = owner.make(name, make)
            return found
        with self._lock:
            values = self.values
            if name not in values:
                values[name] = make()
            value: Value = values[name]
            return value

    def _owner(self, name: str) -> Runtime:
        """Return the runtime that has a value of this name: for a part, mostly its whole."""
        return self if self.whole is self or _fates[name].is_of_part else self.whole

    def renew(self) -> None:
        """Drop in a forked child what is its parent's, and begin the rest anew."""
        self._lock = threading.RLock()  # another thread of the parent may hold the one from before
        with self.active():
            for values in (*self._set_aside, self.values):
                for name in [name for name in values if not _fates[name].crosses_forks]:
                    del values[name]
                for name, value in values.items():
                    if value is not None and (renew := _fates[name].renew) is not None:
                        renew(value)


@overload
def per_runtime(make: Callable[[], Value], /) -> Callable[[], Value]: ...


@overload
def per_runtime(
    *, is_kept: bool = False, is_of_part: bool = False, renew: _Hook | None = None, close: _Hook | None = None
) -> Callable[[Callable[[], Value]], Callable[[], Value]]: ...


def per_runtime(
    make: Callable[[], Any] | None = None,
    /,
    *,
    is_kept: bool = False,
    is_of_part: bool = False,
    renew: _Hook | None = None,
    close: _Hook | None = None,
) -> Any:
    """Make a function return one value for each runtime, made at its first use, once.

    Args:
        make: The function, where the decorator stands without arguments.
        is_kept: Whether a value stays when its process forks and when its runtime is closed, as plain data does: locks,
            threads and connections must not.
        is_of_part: Whether each part of a runtime has one of its own.
        renew: Makes it fit for use in a forked child, which then keeps it.
        close: Ends its threads and connections when its runtime is closed.
    """
    if make is None:
        return functools.partial(_access, _Fate(is_kept, is_of_part, renew, close))
    return _access(_Fate(is_kept, is_of_part, renew, close), make)


def _access(fate: _Fate, make: Callable[[], Value]) -> Callable[[], Value]:
    name = _name(make)
    _fates[name] = fate

    # As defaults, which are faster to reach than closure variables: each cache hit needs some values.
    @functools.wraps(make)
    def access(get: Callable[[], Runtime] = _current.get, name: str = name) -> Value:
        try:
            return get().values[name]  # type: ignore[no-any-return]  # values of all kinds stand there
        except KeyError:
            pass
        return get().make(name, make)

    return access


def bound(call: Callable[Given, Value]) -> Callable[Given, Value]:
    """Return a call as one that uses the runtime of now, for a thread: those do not inherit it."""
    return current().bind(call)


def in_own_runtime(method: Method) -> Method:
    """Have a method, ``async`` or not, use the attribute ``runtime`` of its object, wherever it is called.

    Where a part of that runtime is active, it stays so.
    """
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def wait_inside(owner: Any, /, *args: Any, **kwargs: Any) -> Any:
            if owner.runtime is _current.get().whole:
                return await method(owner, *args, **kwargs)
            with owner.runtime.active():
                return await method(owner, *args, **kwargs)

        return cast("Method", wait_inside)

    @functools.wraps(method)
    def inside(owner: Any, /, *args: Any, **kwargs: Any) -> Any:
        if owner.runtime is _current.get().whole:  # as nearly always, and entering it takes a microsecond
            return method(owner, *args, **kwargs)
        with owner.runtime.active():
            return method(owner, *args, **kwargs)

    return cast("Method", inside)


def in_all_runtimes(accessor: Callable[[], Value]) -> list[Value]:
    """Return a value as all runtimes of this process have it, as far as they do."""
    name = _name(accessor)
    with _registration:
        runtimes = list(_runtimes)
    return [values[name] for each in runtimes if name in (values := each.values)]


def after_fork(renew: Callable[[], object]) -> Callable[[], object]:
    """Call this in a forked child too, for what a process has once, whatever its configurations; in order."""
    _process_renewals.append(renew)
    return renew


def _name(accessor: Callable[[], object]) -> str:
    return f"{accessor.__module__}.{accessor.__qualname__}"


def _renew_all() -> None:
    global _registration  # noqa: PLW0603 - another thread of the parent may hold it
    _registration = threading.Lock()
    for renew in _process_renewals:
        renew()
    for runtime in list(_runtimes):
        runtime.renew()


_fates: dict[str, _Fate] = {}
_process_renewals: list[Callable[[], object]] = []
_registration = threading.Lock()
_runtimes: WeakSet[Runtime] = WeakSet()
_numbers = itertools.count()
#: The process's own runtime.
DEFAULT = Runtime()
_current: contextvars.ContextVar[Runtime] = contextvars.ContextVar("dspyq_runtime", default=DEFAULT)
#: Returns the runtime that is active here: the process's own, unless a block has activated another.
current: Callable[[], Runtime] = _current.get
# The only hook: a value without a rule of its own is dropped, so that none crosses a fork by being forgotten.
os.register_at_fork(after_in_child=_renew_all)
