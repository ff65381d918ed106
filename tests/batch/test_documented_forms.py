"""The examples of docs/batches-files.md are read as the page states."""

import json
import re
from pathlib import Path

import pytest

from dspyq.batch.files.source import open_source
from dspyq.config.programs import Program

PAGE = Path(__file__).parents[2] / "docs" / "batches-files.md"
EXAMPLE = re.compile(r"<!-- example: (\w+) \| (.+?) \| (.+?) -->\n```\w+\n(.*?)```", re.DOTALL)
EXAMPLES = EXAMPLE.findall(PAGE.read_text())


@pytest.mark.parametrize(("form", "signature", "expected", "text"), EXAMPLES)
def test_an_example_is_read_as_the_page_states(tmp_path, form, signature, expected, text):
    variant = {"name": "control", "queue": "qa.control", "model": {"name": "fast", "model": "openai/fast"}}
    program = Program(name="qa", signature=signature.replace(" or None", " | None"), variants={"control": variant})
    path = tmp_path / f"rows.{form}"
    path.write_text(text)
    (row,) = open_source(path, spool=tmp_path / "spool").rows(program)
    assert [row.custom_id, row.inputs] == json.loads(expected)


def test_there_is_an_example_of_each_form():
    assert len(EXAMPLES) == PAGE.read_text().count("<!-- example") == 6
