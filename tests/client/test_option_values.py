"""Options of a call that could not be sent: one line names them, and nothing is sent."""

import datetime
from typing import Any

import pytest

from dspyq.errors import InvalidInputs, InvalidOption


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("compression", "nope"),
        ("compression", ["gzip"]),
        ("countdown", "3"),
        ("countdown", float("nan")),
        ("countdown", float("inf")),
        ("countdown", 1e12),
        ("eta", 5),
        ("eta", "soon"),
        ("expires", "soon"),
        ("headers", "abc"),
        ("link", "app.task"),
        ("link_error", [5]),
        ("retry_policy", 5),
        ("serializer", "pickle"),
    ],
)
def test_an_option_that_could_not_be_sent_is_refused_by_its_name(predict, redis_server, name: str, value: Any):
    with pytest.raises(InvalidOption, match=f"^{name} is ") as refused:
        predict.apply_async(kwargs={"question": "a"}, **{name: value})
    assert "\n" not in str(refused.value)
    assert not redis_server.keys("qa.control*")


@pytest.mark.usefixtures("shared_worker")
def test_every_form_of_a_time_is_taken(predict):
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    for number, expires in enumerate([3600, 3600.5, soon, soon.isoformat()]):
        job = predict.apply_async(kwargs={"question": str(number)}, expires=expires, countdown=0, serializer="json")
        assert job.get(timeout=20).answer == f"echo:{number}"


@pytest.mark.usefixtures("shared_worker")
def test_a_known_compression_is_taken(predict):
    job = predict.apply_async(kwargs={"question": "compressed"}, compression="gzip")
    assert job.get(timeout=20).answer == "echo:compressed"


@pytest.mark.parametrize("rows", ["a question", {"question": "a"}, b"a"])
def test_one_row_in_place_of_a_list_is_refused_in_one_line(predict, rows: Any):
    with pytest.raises(InvalidInputs, match="many takes a list of rows"):
        predict.many(rows)
