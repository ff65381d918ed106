"""Celery's remote control, which is off: anyone who may publish on its channel could shut workers down."""

import pytest

from tests.support.processes import wait_until


def shut_down():
    from celery.app.control import Control

    from dspyq.celery_app.application import app

    Control(app).broadcast("shutdown")  # as any other program would


@pytest.mark.parametrize("is_on", [False, True])
def test_a_worker_obeys_no_shutdown_unless_remote_control_is_set(is_on, worker, start_producer, settings_file):
    path = settings_file({"workers": {"remote_control": is_on}})
    running = worker(path)
    start_producer(shut_down, path).result(30)
    if is_on:
        wait_until(lambda: not running.is_running, 30, "the worker to end")
        return

    def ask():
        from dspyq import predict

        return [predict.delay(question=f"q{number}").get(timeout=30).answer for number in range(3)]

    assert start_producer(ask, path).result(60) == ["echo:q0", "echo:q1", "echo:q2"]
    assert running.is_running
