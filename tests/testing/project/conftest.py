"""Nothing of these tests may need a thread or a connection."""

import os
import socket
import threading
from pathlib import Path

import pytest

os.environ.setdefault("DSPYQ_CONFIG", str(Path(__file__).parent / "dspyq.toml"))


@pytest.fixture(autouse=True)
def neither_thread_nor_socket(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a test's prediction needs a thread or a connection")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
