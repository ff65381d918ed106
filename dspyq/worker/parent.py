"""The parent of ``dspyq worker``, as its workers see it: they end when it is gone, however it ended."""

from __future__ import annotations

import os
import signal
import threading

from dspyq.processes.worker_process import TIED

_STDIN = 0


def end_with_parent() -> None:
    """Have SIGTERM end this process once its parent is gone; do nothing in a worker without one."""
    if TIED in os.environ:
        threading.Thread(target=_wait, name="dspyq-parent", daemon=True).start()


def _wait() -> None:
    """Wait for the end of the standard input: the kernel closes its other end with the parent, by SIGKILL too."""
    try:
        while os.read(_STDIN, 1):
            pass
    except OSError:  # only the worker itself can have closed it
        return
    os.kill(os.getpid(), signal.SIGTERM)
