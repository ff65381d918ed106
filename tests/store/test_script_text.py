"""Texts of Lua scripts: what a file states of its keys and arguments, and what is sent of its libraries."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from dspyq.store.script_text import Argument, Arguments, read_script
from dspyq.store.scripts import load_script

PACKAGE = Path(str(files("dspyq")))
ROOMS = sorted(".".join(folder.parent.relative_to(PACKAGE).parts) for folder in PACKAGE.rglob("lua"))
LIBRARIES = {
    "accounts", "aliases", "breaker_hash", "call_limits", "changes", "claiming", "claims", "common", "jobs", "lines",
    "putting", "rows", "schedule", "shadows", "sleepers", "state", "sums", "turns", "withdrawing",
}  # fmt: skip


def every_file():
    for room in ROOMS:
        for file in sorted((files(f"dspyq.{room}") / "lua").iterdir(), key=lambda file: file.name):
            yield room, file.name.removesuffix(".lua"), file.read_text()


def every_script():
    return [(f"dspyq.{room}", name) for room, name, _ in every_file() if name not in LIBRARIES]


ALL = Arguments((
    Argument("id"), Argument("limits", length=2), Argument("note", is_optional=True), Argument("rest", length=None)
))  # fmt: skip


def test_arguments_go_in_the_order_that_the_file_states():
    assert ALL.put_in_order({"rest": (4, 5), "limits": [1, 2], "note": "n", "id": "a"}) == ("a", 1, 2, "n", 4, 5)


def test_an_optional_argument_is_left_out_where_nothing_follows():
    assert ALL.put_in_order({"rest": (), "limits": [1, 2], "id": "a"}) == ("a", 1, 2)
    assert ALL.put_in_order({"rest": (4,), "limits": [1, 2], "id": "a"}) == ("a", 1, 2, "", 4)


@pytest.mark.parametrize("declared", [ALL, Arguments((Argument("id"), Argument("limits"), Argument("rest")))])
@pytest.mark.parametrize(
    ("change", "said"),
    [({"fence": 1}, "no argument fence"), ({"id": None}, "needs the argument id")],
)
def test_a_missing_or_unknown_argument_is_refused(declared, change, said):
    given = {"id": "a", "limits": [1, 2], "rest": ()} | change
    with pytest.raises(TypeError, match=said):
        declared.put_in_order({name: value for name, value in given.items() if value is not None})


def test_a_list_of_another_length_is_refused():
    with pytest.raises(TypeError, match="limits has 2 values, not 3"):
        ALL.put_in_order({"id": "a", "limits": [1, 2, 3], "rest": ()})


def test_a_script_gets_its_arguments_by_name(redis_server):
    with redis_server.client() as client:
        finish = load_script(client, "dspyq.delivery", "finish")
        assert finish(fence="1", id="a") == 0
        with pytest.raises(TypeError, match="no argument lease"):
            finish(id="a", fence="1", lease=3)


@pytest.mark.parametrize(("package", "name"), every_script())
def test_only_the_functions_that_a_script_calls_are_sent(package, name):
    text = read_script(package, name).text
    for function in re.findall(r"^local function (\w+)", text, re.MULTILINE):
        assert len(re.findall(rf"\b{function}\b", text)) > 1, function


@pytest.mark.parametrize(
    ("room", "name", "text"), [pytest.param(*file, id="/".join(file[:2])) for file in every_file()]
)
def test_no_file_reads_an_argument_by_its_position_or_writes_a_key_or_a_lifetime(room, name, text):
    code = re.sub(r"^ *--.*\n", "", text, flags=re.MULTILINE)
    if (room, name) != ("store", "common"):  # which makes the list of all that follow
        assert not re.search(r"\b(ARGV|KEYS)\b", code)
    assert not re.search(r"dspy:v1|\bfunction (now|whole|holds)\b|SECONDS_\w+ =", code) or name == "common"


def test_a_file_states_every_line_of_its_keys_and_arguments_in_the_form_that_is_read():
    stated = re.compile(r"^-- (?:Keys|Arguments):\n((?:--  .*\n)+)", re.MULTILINE)
    line = re.compile(r"--   (?:[a-z_]+(?::number)?(?:\?|\.\.\.|\[\d+\])? +\S|     )")
    for room, name, text in every_file():
        for block in stated.findall(text):
            assert all(line.match(each) for each in block.splitlines()), f"{room}/{name}"
        assert not re.search(r"^-- (?:Keys|Arguments): *\S", text, re.MULTILINE), f"{room}/{name}"
