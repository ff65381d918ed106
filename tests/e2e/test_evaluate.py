"""The examples of docs/evaluate.md run as they stand, one after the other."""

import json
import re
from pathlib import Path


def test_predict_runs_under_dspys_evaluate_and_an_optimiser_as_the_docs_show(
    predict, shared_worker, endpoint, capsys, tmp_path, monkeypatch
):
    del predict, shared_worker
    page = Path("docs/evaluate.md").read_text(encoding="utf-8")
    evaluate, optimise = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(evaluate, namespace)  # noqa: S102 - our own documentation
    assert float(capsys.readouterr().out.split()[-1]) == 0
    assert endpoint.calls() == 1
    exec(optimise, namespace)  # noqa: S102 - our own documentation
    assert endpoint.calls() == 4
    demos = json.loads((tmp_path / "qa.json").read_text())["demos"]
    assert len(demos) == 2
    assert all(demo["answer"] == f"echo:{demo['question']}" for demo in demos)
