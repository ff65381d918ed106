"""Records and messages hold no content; test_observed.py has what a worker and Flower show of it."""

import pytest
from celery.exceptions import Retry

from dspyq.config.privacy import exception_type
from dspyq.errors import PredictionFailed
from tests.support.observation import QUESTION


def test_a_record_holds_no_content_for_handlers_of_ones_own(run_producer):
    def log(content):
        import logging

        from dspyq.worker import privacy

        records = []
        handler = logging.Handler()
        handler.emit = records.append
        privacy.hide_content()
        logger = logging.getLogger("celery.app.trace")
        logger.addHandler(handler)
        context = {"id": "an id", "args": content, "exc": repr(ValueError(content))}
        logger.error("%(id)s %(exc)s", context, exc_info=ValueError(content), extra={"data": context})  # as Celery logs
        return repr(vars(records[0]))

    record = run_producer(log, content=QUESTION)
    assert "an id" in record
    assert "ValueError" in record
    assert QUESTION not in record


def test_a_message_describes_no_arguments(configured):
    del configured
    from dspyq.celery_app.application import app

    headers = app.amqp.as_task_v2("an id", "a task", args=[QUESTION], kwargs={"text": QUESTION}).headers
    assert QUESTION not in repr(headers)


@pytest.mark.parametrize(
    ("representation", "shown"),
    [
        (repr(ValueError(QUESTION)), "ValueError"),
        (repr(Retry(exc=KeyError(QUESTION), when=1)), "KeyError"),
        (str(Retry(exc=KeyError(QUESTION), when=1)), "KeyError"),
        (repr(PredictionFailed(f"LMTimeoutError: {QUESTION}")), "PredictionFailed: LMTimeoutError"),
        (repr(PredictionFailed(QUESTION)), "PredictionFailed"),
        (f"<{QUESTION}>", "..."),
        (QUESTION, "..."),
    ],
)
def test_of_an_exception_the_type_alone_is_shown(representation, shown):
    assert exception_type(representation) == shown
