"""Plain ``celery -A dspyq flower``: it shows workers, queues and tasks, and nothing of what they are about."""

import re

from flower.urls import handlers

from tests.support.configuration import API_KEY
from tests.support.observation import ANSWER, ERROR, PASSWORD, QUESTION, WAITING_JOBS

CONTENT = (QUESTION, ANSWER, ERROR)


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
