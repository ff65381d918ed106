"""Raw exchanges with servers that may cut a connection off at any step of them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

#: How long a server may take to reply or to close; it decides no test.
PATIENCE_SECONDS = 60.0


def exchange(port: int, sent: bytes, *, half_closes: bool = False) -> bytes:
    """Send bytes to a local port, and return all that comes until the server closes the connection.

    Args:
        port: The port.
        sent: What is sent, as far as the server takes it.
        half_closes: End the sending side behind it.

    Raises:
        TimeoutError: If the server keeps the connection open.
    """
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        with cut_off_at_any_step():
            connection.sendall(sent)
            if half_closes:
                connection.shutdown(socket.SHUT_WR)
        with cut_off_at_any_step():  # what came before the cut can be read behind it
            while data := connection.recv(65_536):
                received += data
    return received


@contextlib.contextmanager
def cut_off_at_any_step() -> Iterator[None]:
    """End the block where the other side has closed the connection: EPIPE, ECONNRESET or ENOTCONN, as it happens.

    Raises:
        TimeoutError: As the block does; a server that is silent has not cut anything off.
    """
    try:
        yield
    except TimeoutError:
        raise
    except OSError:
        pass
