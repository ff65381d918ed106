"""``dspyq batch run --paired --score --cluster FIELD`` with a real worker: scores in OUT, intervals by document."""

from __future__ import annotations

import json

import pytest

from tests.support.configuration import default_document
from tests.support.experiments import with_experiment

HOOKS = "tests.support.user_scorers"
DOCUMENTS, ROWS_A_DOCUMENT = 60, 2


@pytest.fixture
def path(settings_file):
    return settings_file({"programs": {"qa": {"scorers": [f"{HOOKS}:is_brief", f"{HOOKS}:fails"]}}}, challenger=0.5)


@pytest.fixture
def batch(dspyq, path, tmp_path):
    """Run a paired batch over rows: ``batch(rows, "--score")``; its process and the lines of OUT come back."""

    def run(rows, *options, name="in.jsonl", settings=path, ok=True):
        file, out = tmp_path / name, tmp_path / "out.jsonl"
        file.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
        ran = dspyq("batch", "run", str(file), "--paired", "--output", str(out), *options, settings=settings, ok=ok)
        return ran, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []

    return run


def rows_of_documents():
    """Of every second document the challenger, which echoes, gives long answers."""
    for document in range(DOCUMENTS):
        for number in range(ROWS_A_DOCUMENT):
            words = " a long question" if document % 2 else ""
            yield {"question": f"{document}-{number}{words}", "document": f"secret {document}"}


def test_scores_are_compared_by_document(batch, worker, path, endpoint, dspyq, tmp_path):
    worker(path)
    endpoint.script(model="control", outputs={"answer": "brief"})
    ran, lines = batch(rows_of_documents(), "--score", "--cluster", "document")
    assert len(lines) == 2 * DOCUMENTS * ROWS_A_DOCUMENT
    scores = [(line["metadata"]["variant"], line["metadata"]["scores"][f"{HOOKS}:is_brief"]) for line in lines]
    assert scores.count(("control", 1.0)) == DOCUMENTS * ROWS_A_DOCUMENT
    assert scores.count(("challenger", 1.0)) == scores.count(("challenger", 0.0)) == DOCUMENTS
    assert {line["metadata"]["scores"][f"{HOOKS}:fails"] for line in lines} == {None}
    page = dspyq("batch", "report", str(tmp_path / "out.jsonl"), settings=path).stdout
    (found,) = [line for line in page.splitlines() if "is_brief" in line]
    assert "−0.5 (−0." in found.replace("\\", "")
    assert "on 120 rows" in found
    assert f"in {DOCUMENTS} clusters" in page
    assert "secret" not in page + ran.stdout + ran.stderr
    assert b"secret" not in (tmp_path / "out.jsonl.journal").read_bytes()


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("in.jsonl", [{"question": "x"}], "line 1: no field 'document', which --cluster names"),
        ("in.jsonl", [{"custom_id": "a", "inputs": {"question": "x"}}], "line 1: no field 'document'"),
        ("in.csv", "question\nx\n", "has no column 'document', which --cluster names"),
    ],
)
@pytest.mark.usefixtures("path")
def test_a_field_that_rows_lack_is_one_line(batch, name, rows, said):
    ran, lines = batch(rows, "--cluster", "document", name=name, ok=False)
    assert ran.returncode == 2
    assert said in " ".join(ran.stderr.split())
    assert lines == []


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("in.jsonl", [{"custom_id": "a", "inputs": {"question": "x"}, "document": 7}]),
        ("in.csv", "question,document\nx,7\n"),
    ],
)
def test_a_cluster_stands_beside_the_inputs_in_each_form(batch, worker, path, name, rows):
    worker(path)
    _, lines = batch(rows, "--cluster", "document", name=name)
    assert [line["status"] for line in lines] == ["ok", "ok"]


def test_a_later_row_without_its_cluster_fails_alone(batch, worker, path):
    worker(path)
    rows = [{"question": "x", "document": 1}, {"question": "y"}]
    _, lines = batch(rows, "--cluster", "document", ok=False)
    assert sorted((line["error"] or {}).get("type", "") for line in lines) == ["", "", "NoCluster", "NoCluster"]


def test_a_judges_scores_are_paid_by_its_account(batch, worker, settings_file, endpoint, dspyq):
    scores = {"judged": {"scorer": f"{HOOKS}:judged", "low": 0, "high": 1, "share": 0.01}}
    changes = with_experiment(scores=scores, judge={"model": "judge", "daily_usd": 1})
    changes["programs"]["qa"]["scorers"] = [f"{HOOKS}:judged"]
    model = default_document(endpoint.url)["models"]["control"] | {"model": "openai/judge"}
    settings = settings_file(changes | {"models": {"judge": model}}, challenger=0.5)
    endpoint.script(model="judge", outputs={"grounded": 0.25})
    worker(settings)
    _, lines = batch([{"question": "x"}, {"question": "y"}], "--score", settings=settings)
    assert [line["metadata"]["scores"] for line in lines] == [{f"{HOOKS}:judged": 0.25}] * 4
    assert endpoint.counts().calls_by_model["judge"] == 4
    accounts = json.loads(dspyq("budget", "show", "--json", settings=settings).stdout)
    settled = {each["scope"]: each["settled_usd"] for each in accounts if each["period"] == "daily"}
    assert settled["judge:qa"] > 0
    endpoint.clear()


def test_scorers_that_do_not_import_are_one_line(batch, settings_file):
    settings = settings_file({"programs": {"qa": {"scorers": ["no_such_module:judge"]}}}, challenger=0.5)
    ran, _ = batch([{"question": "x"}], "--score", settings=settings, ok=False)
    said = " ".join(ran.stderr.split())
    assert "--score: programs.qa.scorers: no_such_module:judge does not import" in said
    ran, _ = batch([{"question": "x"}], "--score", settings=settings_file(challenger=0.5), ok=False)
    assert "programs.qa.scorers names no function" in " ".join(ran.stderr.split())


def test_a_cluster_without_a_comparison_is_refused(dspyq, path, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"question": "x"}\n')
    arguments = ("batch", "run", str(tmp_path / "in.jsonl"), "--cluster", "question", "--output", str(tmp_path / "o"))
    ran = dspyq(*arguments, settings=path, ok=False)
    assert "give --paired too" in " ".join(ran.stderr.split())


def test_rows_of_a_batch_of_their_own_keep_their_clusters(batch, worker, settings_file, endpoint, dspyq, tmp_path):
    settings = settings_file({"retry": {"max_attempts": 1}}, challenger=0.5)
    worker(settings)
    endpoint.script(times=4, status=503)
    rows = [{"question": "x", "document": "one"}, {"custom_id": "b", "inputs": {"question": "y"}, "document": "one"}]
    batch(rows, "--cluster", "document", settings=settings, ok=False)
    again = tmp_path / "again.jsonl"
    dspyq("batch", "retry", str(tmp_path / "out.jsonl"), "--output", str(again), settings=settings)
    assert [json.loads(line)["status"] for line in again.read_text().splitlines()] == ["ok"] * 4
    kept = [json.loads(line)["document"] for line in (tmp_path / "again.jsonl.input.jsonl").read_text().splitlines()]
    assert kept[0] == kept[1]
