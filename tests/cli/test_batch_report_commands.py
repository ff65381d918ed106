"""``dspyq batch run --dry-run``, ``report`` and ``retry``, as people run them."""

import json
import re

import pytest

from tests.support.html_page import Page


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    rows = [{"custom_id": f"<r{number}>", "question": f"secret {number}"} for number in range(4)]
    rows += [{"custom_id": "again", "question": "secret 1"}, {"custom_id": "bad", "quesion": "secret"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_batch_is_quoted_run_reported_and_retried(dspyq, questions, tmp_path, endpoint, shared_worker):
    del shared_worker
    quote = dspyq("batch", "run", str(questions), "--dry-run", "--max-usd", "5").stdout
    assert ["to", "be", "paid", "4"] in [line.split() for line in quote.splitlines()]
    assert "faulty: InvalidInputs" in quote
    assert endpoint.calls() == 0
    out, page = tmp_path / "out <img src=x> [a](b).jsonl", tmp_path / "report.html"
    endpoint.script(containing="secret 2", status=500)
    dspyq("batch", "run", str(questions), "--output", str(out), "--name", "[/b]\x1b", ok=False)
    assert "[/b]\\x1b" in dspyq("batch", "list").stdout
    endpoint.clear()
    report = tmp_path / "report.md"
    dspyq("batch", "report", str(out), "--html", str(page), "--markdown", str(report))
    assert "| failed | 2 | 1 can be retried |" in report.read_text()
    assert re.search(r"\n\d\d:\d\d:\d\d +\d\d:\d\d:\d\d UTC, at most", report.read_text())
    text = page.read_text()
    assert "secret" not in text + report.read_text()
    parsed = Page(text)
    assert parsed.references == []
    assert "Content-Security-Policy" in text
    assert report.read_text().startswith("# Batch of qa: out &lt;img src=x&gt; \\[a](b).jsonl\n")
    assert "<r2>" in "".join(parsed.text)
    retried = dspyq("batch", "retry", str(out), ok=False)
    assert retried.returncode == 1
    assert "| failed | 1 | 0 can be retried |" in dspyq("batch", "report", str(out)).stdout
    assert {json.loads(line)["custom_id"] for line in out.read_text().splitlines()} == {
        *(f"<r{number}>" for number in range(4)),
        "again",
        "bad",
    }


def test_what_cannot_be_done_is_one_line_and_exit_2(dspyq, tmp_path):
    none = str(tmp_path / "none.jsonl")
    for arguments in (["report", none], ["run", none, "--dry-run"]):
        done = dspyq("batch", *arguments, ok=False)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
