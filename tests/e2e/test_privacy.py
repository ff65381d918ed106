"""What users write and models answer stays out of everything a worker says, unless ``logging.include_content``."""

import json
import re

import pytest
from celery.exceptions import Retry

from dspyq.config.privacy import exception_type
from dspyq.errors import PredictionFailed
from tests.support.configuration import API_KEY
from tests.support.observation import ANSWER, ERROR, PASSWORD, QUESTION

CONTENT = (QUESTION, ANSWER, ERROR)
SECRETS = (PASSWORD, API_KEY)
WHERE = ("log", "flower_log", "events", "inspection", "titles", "keys")


def found(text, words):
    """The lines in which one of the words stands."""
    return [line[:300] for line in text.splitlines() if any(word in line for word in words)]


@pytest.mark.parametrize("where", WHERE)
def test_content_stays_out_of(hidden, where):
    assert not found(getattr(hidden, where), CONTENT)


@pytest.mark.parametrize("where", WHERE)
def test_secrets_stay_out_even_with_the_setting(hidden, shown, where):
    assert not found(getattr(hidden, where), SECRETS)
    assert not found(getattr(shown, where), SECRETS)


@pytest.mark.parametrize("where", ["log", "events", "inspection"])
def test_with_the_setting_content_is_shown_in(shown, where):
    assert QUESTION in getattr(shown, where)
    assert where == "inspection" or (ANSWER in getattr(shown, where) and ERROR in getattr(shown, where))


@pytest.mark.parametrize("where", ["titles", "keys"])
def test_even_with_the_setting_content_stays_out_of(shown, where):
    assert not found(getattr(shown, where), CONTENT)


def entries(observation):
    """The lines of its log, which are JSON."""
    return [json.loads(line) for line in observation.log.splitlines() if line.startswith("{")]


@pytest.mark.parametrize(
    "event",
    [
        r"Task tests\.support\.indiscreet\.fail\[\S+\] raised unexpected: ValueError$",
        r"Task tests\.support\.indiscreet\.return_what_is_not_json\[\S+\] raised unexpected: EncodeError$",
        r"Discarding revoked task: dspyq\.predict\[\S+\]$",
        r"TaskPool: Apply \S+ \(args:\.\.\. kwargs:\.\.\.\)$",
        r"Received and deleted unknown message",
        r"Can't decode message body: 'DecodeError'",
        r"Received unregistered task of type 'nobody\.knows'\.",
        r"Received invalid task message: InvalidTaskError\n",
        r".*RuntimeWarning: Exception raised outside body: InvalidTaskError$",
        r".*indiscreet\.py:\d+: UserWarning: \.\.\.$",
        r".*indiscreet_program\.py:\d+: UserWarning: \.\.\.$",
        r"what programs print is left out; logging\.include_content = true shows it$",
    ],
)
def test_the_log_still_says_what_happened(hidden, event):
    assert [entry for entry in entries(hidden) if re.match(event, entry["event"])]


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "prediction", "status": "success", "error": None},
        {"event": "prediction", "status": "error", "error": "PredictionFailed: LMInvalidRequestError"},
        {"event": "prediction", "status": "error", "error": "PredictionFailed: ValueError"},
        {"event": "task", "task": "tests.support.indiscreet.retry", "status": "retry", "error": "LookupError"},
        {"event": "task", "task": "tests.support.indiscreet.echo", "status": "success"},
        {"event": "thread_ended", "error": "ValueError"},
        {"event": "program_raised", "program": "indiscreet"},
    ],
)
def test_the_log_says_in_fields_what_became_of_each_task(hidden, fields):
    assert [entry for entry in entries(hidden) if fields.items() <= entry.items()]


def test_celerys_own_records_of_predictions_are_replaced(hidden, shown):
    for observation in (hidden, shown):
        records = [entry for entry in entries(observation) if entry["event"].startswith("Task dspyq.predict")]
        assert not records


def test_the_log_shows_where_an_exception_was_raised_and_what_it_came_from(hidden):
    failures = [entry for entry in entries(hidden) if "indiscreet.fail[" in entry["event"]]
    trace = next(entry["traceback"] for entry in failures if "traceback" in entry)
    assert re.findall(r"^\w+$", trace, re.MULTILINE) == ["KeyError", "ValueError"]
    assert len(re.findall(r'^  File ".*indiscreet\.py", line \d+, in fail$', trace, re.MULTILINE)) == 2


def test_remote_control_lists_jobs_by_name_and_id(hidden):
    inspection = json.loads(hidden.inspection)
    for state in ("active", "reserved"):
        requests = inspection[state][hidden.worker]
        assert requests
        assert {request["name"] for request in requests} == {"dspyq.predict"}
        assert {request["id"] for request in requests} <= set(hidden.jobs.values())
        assert {(request["args"], request["kwargs"]) for request in requests} == {("...", "...")}


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
