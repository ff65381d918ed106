"""A cluster whose nodes speak TLS: each node is behind a proxy that does, and announces the proxy's port."""

from contextlib import ExitStack

import pytest

from dspyq import predict
from dspyq.celery_app.application import process_app
from dspyq.core.runtime import DEFAULT
from dspyq.errors import RedisUnavailable
from tests.cluster.conftest import SPINES
from tests.support.cluster import RedisCluster, shown_ports
from tests.support.processes import wait_until
from tests.support.proxy import TLS_FOLDER, Proxy

pytestmark = pytest.mark.journey


@pytest.fixture
def tls_hosts():
    """The nodes, as clients reach them."""
    with RedisCluster(has_replicas=False) as cluster, ExitStack() as proxies:
        ports = [proxies.enter_context(Proxy(node.port, is_tls=True)).port for node in cluster.nodes]
        for node, port in zip(cluster.nodes, ports, strict=True):
            node.cli("CONFIG", "SET", "cluster-announce-port", port)
        wait_until(lambda: all(shown_ports(node) == set(ports) for node in cluster.nodes), 60, "the proxies' ports")
        yield ",".join(f"127.0.0.1:{port}" for port in ports)


@pytest.fixture
def cluster_env(tls_hosts):
    """The variables that name the cluster."""
    certificate = TLS_FOLDER / "certificate.pem"
    return {"DSPYQ_REDIS_URL": f"clusters://{tls_hosts}/{SPINES}?ssl_ca_certs={certificate}"}


@pytest.mark.usefixtures("configured_cluster")
def test_questions_of_all_spines_are_answered_over_tls_alone(cluster_worker, tls_hosts, monkeypatch):
    cluster_worker()
    questions = [f"over TLS {number}" for number in range(12)]
    assert [predict.delay(question=each).get(timeout=60).answer for each in questions] == [
        f"echo:{each}" for each in questions
    ]
    own = predict.apply_async(kwargs={"question": questions[0]}, task_id="over TLS")
    assert own.get(timeout=60).metadata.cached
    for unsafe in (f"clusters://{tls_hosts}/{SPINES}", f"cluster://{tls_hosts}/{SPINES}"):
        monkeypatch.setenv("DSPYQ_REDIS_URL", unsafe)
        with DEFAULT.emptied():
            process_app()
            with pytest.raises(RedisUnavailable):
                predict.delay(question="of nobody")
