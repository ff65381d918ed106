"""Functions of a user's own that a configuration names by import path."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable
from typing import Any

from dspyq.errors import ConfigurationError


def import_hook(path: str, setting: str) -> Callable[..., Any]:
    """Return the function at ``package.module:function``.

    Raises:
        ConfigurationError: If it does not import, or is no function; the message names the setting.
    """
    module_path, _, name = path.partition(":")
    try:
        found = operator.attrgetter(name)(importlib.import_module(module_path))
    except Exception as error:  # noqa: BLE001 - the user's module may raise anything
        raise ConfigurationError(f"{setting}: {path} does not import: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise ConfigurationError(f"{setting}: {path} is no function")
    function: Callable[..., Any] = found
    return function
