"""A TCP proxy before a real server: it speaks TLS with clients, hands replies on in small pieces, or holds requests."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

#: For tests alone: a key that everybody knows, of a certificate for localhost.
TLS_FOLDER = Path(__file__).parent / "tls"
_READ_BYTES = 65_536


class Proxy:
    """Listens on a loopback port of its own and forwards each connection to another port.

    Attributes:
        port: Where it listens.
        is_held: Set once it has held a request back.
    """

    def __init__(
        self, target_port: int, *, is_tls: bool = False, piece_bytes: int = 0, pause_seconds: float = 0
    ) -> None:
        """Listen.

        Args:
            target_port: Where to forward to.
            is_tls: Whether clients speak TLS.
            piece_bytes: The most bytes of a reply to hand on at once; 0 for as they come.
            pause_seconds: How long to wait between pieces.
        """
        self._target_port = target_port
        self._piece_bytes = piece_bytes
        self._pause_seconds = pause_seconds
        self._tls: ssl.SSLContext | None = None
        if is_tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(TLS_FOLDER / "certificate.pem", TLS_FOLDER / "key.pem")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self._held_text = b""
        self.is_held = threading.Event()
        self._released = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def hold(self, text: bytes) -> None:
        """Hold requests with this text back, and what follows them on their connections, until ``release``."""
        self._held_text = text

    def release(self) -> None:
        """Hand held requests on."""
        self._released.set()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            if self._tls:
                client = self._tls.wrap_socket(client, server_side=True)
            server = socket.create_connection(("127.0.0.1", self._target_port))
            self._open += [client, server]
            threading.Thread(target=self._forward, args=(client, server, 0), daemon=True).start()
            self._forward(server, client, self._piece_bytes)

    def _forward(self, source: socket.socket, target: socket.socket, piece_bytes: int) -> None:
        with suppress(OSError):
            while data := source.recv(_READ_BYTES):
                if self._held_text and self._held_text in data:
                    self.is_held.set()
                    self._released.wait()
                for start in range(0, len(data), piece_bytes or len(data)):
                    target.sendall(data[start : start + (piece_bytes or len(data))])
                    time.sleep(self._pause_seconds if piece_bytes else 0)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
