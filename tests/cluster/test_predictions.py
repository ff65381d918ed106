"""Predictions over a cluster, end to end."""

import pytest

from dspyq import predict

pytestmark = pytest.mark.usefixtures("configured_cluster")


def test_questions_of_all_spines_are_answered_and_all_keys_carry_the_tag_of_their_spine(cluster_worker, redis_cluster):
    cluster_worker()
    questions = [{"question": f"question {number}"} for number in range(40)]
    first = [job.get(timeout=60).answer for job in predict.many(questions)]
    assert len(first) == 40
    assert [predict.delay(**each).get(timeout=60).answer for each in questions] == first
    names = [name for node in redis_cluster.masters() for name in node.client.scan_iter("*")]
    assert [name for name in names if not name.startswith("{")] == []
    spines = {name.partition("}")[0] for name in names if "celery-task-meta-" in name}
    assert len(spines) >= 3  # which of them depends on the endpoint.s address
