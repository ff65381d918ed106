"""The command ``dspyq`` with ``recorded_syncs``: ``python -m tests.support.recorded_command batch run …``."""

from __future__ import annotations

import runpy

import tests.support.recorded_syncs  # noqa: F401 - it changes the module that waits

if __name__ == "__main__":
    runpy.run_module("dspyq", run_name="__main__")
