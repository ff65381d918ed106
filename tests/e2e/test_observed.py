"""Jobs of every fate are watched once with content and once without: logs, Flower, events, remote control, keys.

All tests of the two observations stand in this file, so that each is made once: it takes seconds.
"""

import json
import re

import pytest
from flower.urls import handlers

from tests.support.configuration import API_KEY
from tests.support.observation import ANSWER, ERROR, PASSWORD, QUESTION, WAITING_JOBS, Observation, observe

pytestmark = pytest.mark.journey

CONTENT = (QUESTION, ANSWER, ERROR)


SECRETS = (PASSWORD, API_KEY)


WHERE = ("log", "flower_log", "events", "inspection", "titles", "keys")


@pytest.fixture(scope="module")
def hidden(session_endpoint, tmp_path_factory) -> Observation:
    """The view of an observer with the default settings."""
    return observe(session_endpoint, tmp_path_factory.mktemp("hidden"), include_content=False)


@pytest.fixture(scope="module")
def shown(session_endpoint, tmp_path_factory) -> Observation:
    """The view of an observer with ``logging.include_content``."""
    return observe(session_endpoint, tmp_path_factory.mktemp("shown"), include_content=True)


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
        r"Can't decode message body: 'ValueError'",
        r"Received unregistered task of type 'nobody\.knows'\.",
        r"Received invalid task message: InvalidTaskError\n",
        r".*RuntimeWarning: Exception raised outside body: InvalidTaskError$",
        r".*indiscreet\.py:\d+: UserWarning: \.\.\.$",
        r".*indiscreet_program\.py:\d+: UserWarning: \.\.\.$",
        r"what programs print is left out; logging\.include_content = true shows it$",
    ],
)
def test_the_log_still_states_the_outcome(hidden, event):
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
def test_the_log_has_the_outcome_of_each_task_in_fields(hidden, fields):
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


def pages_with(observation, *words):
    return {page for page, (_, text) in observation.pages.items() if any(word in text for word in words)}


def shows(observation, page, word):
    return word in observation.pages[page][1]


def test_every_route_of_flower_is_looked_at(hidden):
    routes = {handler.regex.pattern if hasattr(handler, "regex") else handler[0] for handler in handlers}
    paths = {page.split(" ", 1)[1].partition("?")[0] for page in hidden.pages}
    missed = {route for route in routes if not any(re.fullmatch(route, path) for path in paths)}
    assert missed == {"/static/(.*)"}


def test_inputs_answers_and_exception_texts_appear_on_no_page_and_no_path_of_the_api(hidden):
    assert not pages_with(hidden, *CONTENT)


def test_no_page_and_no_path_of_the_api_shows_a_secret(hidden, shown):
    assert not pages_with(hidden, PASSWORD, API_KEY)
    assert not pages_with(shown, PASSWORD, API_KEY)


def test_with_the_setting_content_appears_wherever_flower_shows_it(shown):
    jobs = shown.jobs
    for page in ("/api/tasks", next(page for page in shown.pages if "datatable" in page).removeprefix("GET ")):
        assert all(shows(shown, f"GET {page}", word) for word in CONTENT)
    for path in ("/task", "/api/task/info", "/api/task/result"):
        assert shows(shown, f"GET {path}/{jobs['answered']}", ANSWER)
        assert shows(shown, f"GET {path}/{jobs['refused']}", ERROR)
        assert shows(shown, f"GET {path}/{jobs['raised']}", QUESTION)
    assert shows(shown, f"GET /worker/{shown.worker}", QUESTION)
    assert shows(shown, f"GET /api/workers?refresh=1&workername={shown.worker}", QUESTION)
    assert shows(shown, "POST /api/task/apply/dspyq.predict", ANSWER)
    assert shows(shown, "POST /api/task/apply/tests.support.indiscreet.fail", ERROR)


def test_a_worker_is_shown_with_what_it_runs(hidden):
    assert hidden.json("GET /workers?json=1")["data"][0]["hostname"] == hidden.worker
    status, page = hidden.pages[f"GET /worker/{hidden.worker}"]
    assert status == 200
    assert hidden.jobs["held0"] in page


def test_tasks_are_shown_by_name_and_state(hidden):
    tasks = hidden.json("GET /api/tasks")
    states = {name: (tasks[job]["name"], tasks[job]["state"]) for name, job in hidden.jobs.items()}
    assert states["answered"] == ("dspyq.predict", "SUCCESS")
    assert states["refused"] == states["raised"] == ("dspyq.predict", "FAILURE")
    assert states["revoked"][1] == "REVOKED"  # before a worker says its name
    assert states["retried"] == ("tests.support.indiscreet.retry", "FAILURE")
    assert states["held0"] == ("dspyq.predict", "STARTED")


def test_the_type_of_an_exception_is_shown(hidden):
    tasks = hidden.json("GET /api/tasks")
    assert tasks[hidden.jobs["raised"]]["exception"] == "PredictionFailed: ValueError"
    assert tasks[hidden.jobs["failed"]]["exception"] == "ValueError"
    assert hidden.json(f"GET /api/task/result/{hidden.jobs['raised']}")["result"] == "PredictionFailed: ValueError"


def test_a_result_is_shown_by_its_state(hidden):
    job = hidden.jobs["answered"]
    assert hidden.json(f"GET /api/task/result/{job}") == {"task-id": job, "state": "SUCCESS"}
    applied = hidden.json("POST /api/task/apply/dspyq.predict")
    assert applied["state"] == "SUCCESS"
    assert "result" not in applied


def test_every_configured_queue_is_shown_with_how_many_jobs_wait_in_it(hidden):
    queues = {queue["name"]: queue["messages"] for queue in hidden.json("GET /api/queues/length")["active_queues"]}
    assert queues == {"qa.control": 0, "indiscreet.control": 0, "unserved.control": WAITING_JOBS, "dspyq": 0}
    page = re.sub(r"<[^>]*>|\s+", " ", hidden.pages["GET /broker"][1])
    assert re.search(rf"unserved\.control\s+{WAITING_JOBS}\b", page)
