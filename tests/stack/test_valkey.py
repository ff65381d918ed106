"""The embedded Valkey: starts, answers, keeps its data in its folder, and raises the reason if it does not start."""

import psutil
import pytest
import redis

from dspyq.stack.embedded.valkey import Valkey, ValkeyNotStarted
from tests.support.processes import free_port


def test_it_answers_on_loopback_until_it_is_closed():
    with Valkey() as valkey, redis.Redis.from_url(valkey.url) as client:
        assert client.ping()
        assert client.info("server")["process_id"] == valkey.pid
        assert valkey.url.endswith(f"@127.0.0.1:{valkey.port}/0")
        with redis.Redis(port=valkey.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        assert valkey.url.partition("@")[0].rpartition(":")[2] not in " ".join(psutil.Process(valkey.pid).cmdline())
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert valkey.poll() == 0
    with redis.Redis.from_url(valkey.url) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_it_continues_with_the_data_of_its_folder(tmp_path):
    port = free_port()
    for expected in (None, b"1"):
        with Valkey(port=port, data_folder=tmp_path / "data") as valkey, redis.Redis.from_url(valkey.url) as client:
            assert valkey.port == port
            assert client.get("kept") == expected
            client.set("kept", 1)


def test_options_are_settings_of_valkey(tmp_path):
    log = tmp_path / "valkey.log"
    with Valkey(options={"maxmemory": "64mb"}, log=log) as valkey, redis.Redis.from_url(valkey.url) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(64 * 1024 * 1024)}
    assert "Ready to accept connections" in log.read_text()


def test_a_taken_port_is_reported_in_a_line():
    with Valkey() as valkey, pytest.raises(ValkeyNotStarted, match=f"on port {valkey.port} .* already in use") as told:
        Valkey(port=valkey.port)
    assert "\n" not in str(told.value)


def test_a_wrong_option_is_reported_in_a_line():
    with pytest.raises(ValkeyNotStarted, match="no-such-option"):
        Valkey(options={"no-such-option": "1"})
