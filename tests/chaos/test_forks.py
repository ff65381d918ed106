"""Forks of the nursery: what a fault's threads may ask of one at the same time."""

import os
from concurrent.futures import ThreadPoolExecutor

from tests.support.nursery import Fork, running_nursery
from tests.support.processes import REPOSITORY

THREADS = 8
FORKS = 5


def test_the_end_of_a_fork_is_seen_by_every_thread_that_waits_for_it(tmp_path):
    with running_nursery(tmp_path), ThreadPoolExecutor(THREADS) as pool:
        for number in range(FORKS):
            output = tmp_path / str(number)
            fork = Fork("json.tool", ["--help"], env=os.environ, directory=REPOSITORY, output=output)
            statuses = [pool.submit(fork.wait, 60) for _ in range(THREADS)]
            assert {each.result() for each in statuses} == {0}
