"""Clients of Redis: what becomes of their connections when a configuration is closed."""

from dspyq.core.runtime import DEFAULT
from dspyq.store.clients import jobs_client
from dspyq.store.scripts import command_step, run_together


def test_closing_a_configuration_closes_idle_connections_and_takes_none_from_a_thread(configured):
    """A thread may be between connecting and its first command, where redis-py expects no other to close it."""
    del configured
    client = jobs_client()
    used, idle = (client.connection_pool.get_connection() for _ in range(2))
    socket = used._sock  # noqa: SLF001 - there is no public way
    client.connection_pool.release(idle)
    run_together(client, [command_step(bytes, "PING")])  # leaves one of the client's line
    kept = client.connection_pool.get_connection()
    client.connection_pool.release(kept)
    DEFAULT.close()
    assert used._sock is socket  # noqa: SLF001 - as above; redis-py would connect anew
    used.send_command("PING")
    assert used.read_response() == b"PONG"
    assert {idle._sock, kept._sock} == {None}  # noqa: SLF001 - as above
    client.connection_pool.release(used)
