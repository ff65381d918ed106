"""The base of every task on the transport."""

from __future__ import annotations

import traceback

import pytest
from celery import Celery
from celery.exceptions import Ignore

from dspyq.delivery.task import DeliveredTask


def leave_from_deep_within():
    try:
        int("nothing")
    except ValueError:
        raise Ignore  # noqa: B904 - as deep in a program


class Leaving(DeliveredTask):
    name = "leaving"

    def run(self):
        leave_from_deep_within()


def test_a_body_that_leaves_its_job_costs_celery_no_traceback_of_the_way_there():
    task = Celery(set_as_current=False).register_task(Leaving())
    with pytest.raises(Ignore) as caught:
        task()
    shown = "".join(traceback.format_exception(caught.value))
    assert "ValueError" not in shown
    assert "leave_from_deep_within" not in shown
