"""Notifications to systemd for a unit with ``Type=notify``: the worker takes jobs, or is stopping."""

from __future__ import annotations

import logging
import os
import socket

from dspyq.core.events import Event

logger = logging.getLogger("dspyq.systemd")


def notify(state: str) -> None:
    """Send systemd a state, such as ``READY=1``; do nothing if systemd did not start this process.

    Args:
        state: One of ``sd_notify``'s assignments.
    """
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(state.encode(), address)
    except OSError as error:  # systemd ends what stays silent
        logger.warning(Event("systemd_not_notified", state=state, error=type(error).__name__))
