"""The lines of docs/upgrade.md that rewrite a user's imports and commands, on a project of 0.1."""

import subprocess

import pytest

from dspyq import errors
from tests.docs.blocks import blocks

BEFORE = {
    "shop/views.py": "from producer import predict\nfrom config.errors import BudgetExceeded\n\ndef view():\n"
    "    from producer import app\n    from producer.metrics import serve\n",
    "shop/types.py": "from producer import Metadata, Prediction, Usage\nfrom producer import metrics\n",
    "shop/own.py": "from producer import Kafka\nfrom config import settings\nfrom config.celery_app import app\n",
    "Procfile": "worker: celery -A workers worker -Q qa.control\nown: celery -A config.celery_app worker\n",
    "compose.yaml": "command: [celery, -A, workers, flower]\n",
    "dspyq.toml": 'adapter = "dspyq.embedded.short_prompt:ShortPromptAdapter"\n',
}
AFTER = {
    "shop/views.py": "from dspyq import predict\nfrom dspyq.errors import BudgetExceeded\n\ndef view():\n"
    "    from dspyq.celery_app.application import app\n    from dspyq.client.metrics import serve\n",
    "shop/types.py": "from dspyq import Metadata, Prediction, Usage\nfrom dspyq.client import metrics\n",
    "shop/own.py": BEFORE["shop/own.py"],
    "Procfile": "worker: celery -A dspyq worker -Q qa.control\nown: celery -A config.celery_app worker\n",
    "compose.yaml": "command: [celery, -A, dspyq, flower]\n",
    "dspyq.toml": 'adapter = "dspyq.stack.embedded.short_prompt:ShortPromptAdapter"\n',
}


@pytest.fixture
def rewritten(tmp_path):
    """A project of 0.1 in a repository of its own, after the page's lines."""
    (lines,) = (each.text for each in blocks() if each.page == "docs/upgrade.md" and "sed" in each.text)
    for name, text in BEFORE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for command in ("git init -q && git add .", lines):
        subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True)  # noqa: S607 - the reader's shell
    return {name: (tmp_path / name).read_text() for name in BEFORE}


def test_the_lines_of_the_page_rewrite_old_names_and_leave_the_projects_own(rewritten):
    assert rewritten == AFTER


def test_what_the_rewritten_lines_import_exists(rewritten):
    lines = [line.strip() for name in ("shop/views.py", "shop/types.py") for line in rewritten[name].splitlines()]
    names = {}
    for line in lines:
        if line.startswith("from "):
            exec(line, names)  # noqa: S102 - an import of ours
    assert names["BudgetExceeded"] is errors.BudgetExceeded
    assert names["app"].main == "dspyq"
