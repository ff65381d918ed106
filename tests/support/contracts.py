"""The comparison of contracts: the parameters of what another library keeps private."""

from __future__ import annotations

import inspect
from typing import Any

_STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def parameters(owner: Any, name: str) -> str:
    """Return the names of a function's parameters: ``self queue **kwargs``; ``property`` for what takes none.

    Raises:
        AttributeError: If there is nothing of that name.
    """
    found = inspect.getattr_static(owner, name)
    if isinstance(found, (staticmethod, classmethod)):
        found = found.__func__
    if not callable(found):
        return "property" if hasattr(found, "__get__") else "value"
    return " ".join(_STARS.get(each.kind, "") + each.name for each in inspect.signature(found).parameters.values())
