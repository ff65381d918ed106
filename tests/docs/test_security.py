"""SECURITY.md: each statement of its threat model names a test that is there."""

import re

from tests.support.processes import REPOSITORY

_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows():
    text = (REPOSITORY / "SECURITY.md").read_text()
    return [line for line in text.splitlines() if line.startswith("|") and not re.match(r"\|( sees|-)", line)]


def test_each_statement_names_a_test_that_exists():
    assert len(rows()) >= 25
    for row in rows():
        found = _NAMED.search(row)
        assert found, row
        file, name = found.groups()
        path = REPOSITORY / file
        assert path.exists(), row
        assert re.search(rf"^(async )?def {name}\(", path.read_text(), re.MULTILINE), row
