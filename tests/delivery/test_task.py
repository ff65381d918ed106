"""The base of every task on the transport."""

from __future__ import annotations

import traceback

import pytest
from celery.exceptions import Ignore

from dspyq.delivery.task import DeliveredTask


class Leaving(DeliveredTask):
    name = "leaving"

    def run(self):
        try:
            raise ValueError
        except ValueError:
            raise Ignore  # noqa: B904 - as deep in a program


def test_a_body_that_leaves_its_job_costs_celery_no_traceback_of_the_way_there():
    with pytest.raises(Ignore) as caught:
        Leaving()()
    assert "ValueError" not in "".join(traceback.format_exception(caught.value))
    assert "run" not in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
