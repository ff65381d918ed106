"""Several configurations in one process: ``eu = dspyq.configured("eu.toml")``, then ``eu.predict.delay(…)``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dspyq.client.predict import Predict, process_predict
from dspyq.config.settings import Settings, get_settings, read_settings
from dspyq.core.runtime import Runtime


class Configured:
    """A configuration beside the process's own, with connections, caches and a Celery application of its own.

    Attributes:
        settings: The configuration.
        predict: ``predict``, by this configuration wherever it is called. Its results find their answers in this
            configuration's Redis wherever they are read.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._runtime = Runtime()
        self._runtime.put(get_settings, settings)
        with self._runtime.active():
            self.predict: Predict = process_predict()

    def active(self) -> AbstractContextManager[None]:
        """Have ``dspyq.predict`` be this configuration's within a ``with`` block.

        That holds for the thread or the task of the block, for tasks that it begins and for ``asyncio.to_thread``; a
        thread that it starts by itself has the process's own.
        """
        return self._runtime.active()

    def close(self) -> None:
        """End its threads and connections, when no result of it is waited for any more."""
        self._runtime.close()


def configured(source: str | Path | Mapping[str, Any], /, **overrides: Any) -> Configured:
    """Return another configuration of this process: make it once, as you do with a client, and keep it.

    ``DSPYQ_…`` variables do not apply to it: they are those of the process's own configuration.

    Args:
        source: The path of its TOML file, or the tables of one.
        **overrides: Settings in place of the file's, such as ``redis_url=os.environ["EU_REDIS_URL"]``.

    Raises:
        ConfigurationError: With every fault, one line each.
    """
    return Configured(read_settings(Path(source) if isinstance(source, str) else source, overrides))
