"""The configuration: a TOML file under environment variables, validated whole, then frozen.

``DSPYQ_CONFIG`` names the file, ``dspyq.toml`` in the working directory where it is unset. Any setting can come from
the environment: ``DSPYQ_CACHE__MEMORY_ENTRIES=0``.

Every producer imports this module, and a command may end without a question. So what validates a configuration is
loaded when there is one to read.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspyq.config.secrets import learn_settings
from dspyq.core.runtime import per_runtime
from dspyq.errors import ConfigurationError

if TYPE_CHECKING:
    from dspyq.config.schema import Settings

__all__ = ["DEFAULT_FILE", "Settings", "get_settings", "load_settings", "read_settings", "require_configuration"]

DEFAULT_FILE = "dspyq.toml"


def __getattr__(name: str) -> Any:
    """Load the class of settings when it is first used (PEP 562)."""
    if name != "Settings":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dspyq.config.schema import Settings  # noqa: PLC0415 - as the module states

    return Settings


@per_runtime(is_kept=True)
def get_settings() -> Settings:
    """Return this process's settings, read once.

    Raises:
        ConfigurationError: With every fault of the file and the environment.
    """
    named = os.environ.get("DSPYQ_CONFIG")
    path = Path(named or DEFAULT_FILE)
    if not path.exists() and not named:
        return load_settings(None)
    return load_settings(path)


def require_configuration() -> Path:
    """Check that there is something configured, in a file or in the environment; return where the file is, or would be.

    Raises:
        ConfigurationError: If not, or if it cannot be read.
    """
    path = Path(os.environ.get("DSPYQ_CONFIG") or DEFAULT_FILE)
    if not path.exists() and not get_settings().programs:
        raise ConfigurationError(f"there is no {path} here; write one, or set DSPYQ_CONFIG to your configuration file")
    return path


def load_settings(path: Path | None) -> Settings:
    """Read and validate a configuration file under the environment.

    Args:
        path: The TOML file, or None for the environment alone.

    Raises:
        ConfigurationError: With every fault, one line each.
    """
    document = _read(path, "; set DSPYQ_CONFIG to your configuration file") if path else {}
    from dspyq.config.schema import Settings, unknown_variables  # noqa: PLC0415 - as the module states

    return _validated(Settings, document, path.parent if path else Path(), list(unknown_variables()))


def read_settings(source: Path | Mapping[str, Any], overrides: Mapping[str, Any]) -> Settings:
    """Read and validate a configuration by itself: the environment's settings are those of the process's own.

    Args:
        source: The TOML file, or its tables.
        overrides: Settings in place of those of the same name.

    Raises:
        ConfigurationError: With every fault, one line each.
    """
    document = _read(source) if isinstance(source, Path) else copy.deepcopy(dict(source))
    folder = source.parent if isinstance(source, Path) else Path()
    from dspyq.config.schema import SettingsWithoutEnvironment  # noqa: PLC0415 - as the module states

    return _validated(SettingsWithoutEnvironment, {**document, **overrides}, folder, [])


def _validated(model: type[Settings], document: dict[str, Any], folder: Path, faults: list[str]) -> Settings:
    """Return a document's settings.

    Args:
        model: Settings, or those without the environment.
        document: The tables.
        folder: The place of the files that they name.
        faults: Faults that were found already.
    """
    from dspyq.config.links import locate_files_of_batches, locate_keys, locate_states  # noqa: PLC0415 - as the module states

    locate_files_of_batches(document, folder)
    locate_keys(document, folder)
    faults += locate_states(document, folder)
    try:
        settings = model(**document)
    except ConfigurationError as error:
        raise ConfigurationError([*faults, *error.faults]) from None
    except TypeError as error:  # a top-level key that is no identifier
        raise ConfigurationError([*faults, str(error)]) from None
    except ValueError as error:  # pydantic-settings: an environment variable that should hold JSON
        form = 'a variable of a list or a table holds JSON, as DSPYQ_REDIS_URLS=\'["redis://a", "redis://b"]\''
        raise ConfigurationError([*faults, f"environment: {error}; {form}"]) from None
    if faults:
        raise ConfigurationError(faults)
    learn_settings(settings)
    return settings


def _read(path: Path, hint: str = "") -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - costs an import what only reading a file needs

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}{hint}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from None
