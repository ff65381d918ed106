"""The examples of docs/fastapi.md, django.md and flask.md run, with as much of each framework as they use."""

import asyncio
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

DOCS = Path(__file__).parents[2] / "docs"
REQUEST = SimpleNamespace(GET={"question": "q"}, args={"question": "q"}, session=SimpleNamespace(session_key="user-42"))


class Application:
    """An application of any of them: it leaves the views as they are."""

    def __init__(self, name=""):
        self.name = name

    def get(self, path):
        assert path == "/answer"
        return lambda view: view


class HTTPException(Exception):
    """FastAPI's."""

    def __init__(self, status_code, detail):
        super().__init__(detail)
        self.status_code = status_code


def stand_in(monkeypatch, name, **members):
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def views(monkeypatch):
    """The view ``answer`` of each page, in their order."""
    stand_in(monkeypatch, "fastapi", FastAPI=Application, HTTPException=HTTPException)
    stand_in(monkeypatch, "flask", Flask=Application, request=REQUEST)
    stand_in(monkeypatch, "django")
    stand_in(monkeypatch, "django.http", HttpRequest=object, JsonResponse=dict)
    text = "\n".join((DOCS / f"{page}.md").read_text() for page in ("fastapi", "django", "flask"))
    found = []
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        if "def answer(" in block:
            names = {"__name__": "views"}
            exec(block, names)  # noqa: S102 - it is our own page
            found.append(names["answer"])
    return found


def call(view):
    argument = "q" if "question" in inspect.signature(view).parameters else REQUEST
    result = view(argument) if inspect.signature(view).parameters else view()
    return asyncio.run(result) if inspect.iscoroutine(result) else result


def test_each_view_answers(views, predict, shared_worker, endpoint):
    del predict, shared_worker
    assert len(views) == 4
    answers = [call(view) for view in views]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["answer"]
    assert endpoint.calls() == 1


def test_a_question_that_can_never_be_served_is_the_clients_mistake(views, predict):
    del predict
    with pytest.raises(HTTPException) as raised:
        asyncio.run(views[0](5))
    assert raised.value.status_code == 422
