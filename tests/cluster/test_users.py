"""The users of ``dspyq/store/users.py`` for a cluster: each part works with its own rights on all slots."""

import pytest

from dspyq import predict
from dspyq.core.redis_address import parse_address, url_of_spine
from dspyq.store.clients import connect
from dspyq.store.users import ANY_TAG, users
from tests.cluster.conftest import SPINES
from tests.support.redis_users import PREFIX, QUEUES, password_of, split

pytestmark = pytest.mark.journey


def url_of(cluster, user):
    """The address of the cluster for a user."""
    return cluster.url_of(SPINES).replace("cluster://", f"cluster://{user}:{password_of(user)}@")


@pytest.fixture
def guarded_cluster(redis_cluster):
    """The cluster, with all users on all nodes."""
    rules = users(ANY_TAG + PREFIX, QUEUES)
    for node in redis_cluster.nodes:
        node.cli("ACL", "LOG", "RESET")
        for name, each in rules.items():
            node.cli("ACL", "SETUSER", name, "reset", "on", f">{password_of(name)}", *split(each))
    yield redis_cluster
    for node in redis_cluster.nodes:
        for name in rules:
            node.cli("ACL", "DELUSER", name)


@pytest.fixture
def cluster_env(guarded_cluster):
    """The variables of a producer."""
    return {
        "DSPYQ_REDIS_URL": url_of(guarded_cluster, "producer"),
        "DSPYQ_KEY_PREFIX": PREFIX,
        "DSPYQ_WORKERS__REMOTE_CONTROL": "false",
    }


@pytest.mark.usefixtures("configured_cluster")
def test_workers_and_producers_have_the_rights_that_they_need_on_a_cluster_and_no_others(
    cluster_worker, guarded_cluster
):
    cluster_worker(env={"DSPYQ_REDIS_URL": url_of(guarded_cluster, "worker")})
    questions = [{"question": f"of users {number}"} for number in range(12)]
    assert len([job.get(timeout=60) for job in predict.many(questions)]) == 12
    assert predict.delay(question="of one").get(timeout=60)
    refused = [entry for node in guarded_cluster.nodes for entry in node.cli("ACL", "LOG", 100)]
    assert refused == []
    spine = url_of_spine(url_of(guarded_cluster, "producer"), "1")
    with connect(spine) as client, pytest.raises(Exception, match=r"(?i)permission"):
        client.set(f"{parse_address(spine).tag}{PREFIX}celery-task-meta-forged", "an answer")
