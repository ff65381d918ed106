"""Inputs that are left out, over the whole way: by every way of asking, as DSPy has it."""

import json


def test_inputs_that_are_left_out_are_in_no_prompt_however_they_are_asked(
    worker, run_producer, dspyq, settings_file, endpoint, tmp_path
):
    path = settings_file({"programs": {"qa": {"signature": "question, hint: str | None, tone = 'dry' -> answer"}}})
    worker(path)

    def ask():
        from dspyq import predict

        jobs = [
            predict.delay(question="left out"),
            predict.delay(question="none", hint=None),
            predict.delay(question="given", hint="my hint", tone="wet"),
            *predict.many([{"question": "of many"}, {"question": "of many", "tone": "dry"}]),
        ]
        return [job.request.input_hash for job in jobs if job.get(timeout=20)]

    hashes = run_producer(ask, path)
    assert hashes[3] == hashes[4]
    assert len(set(hashes)) == 4
    left_out, none, given, of_many = (
        next(request.text for request in endpoint.requests() if f"## ]]\n{question}\n" in request.text)
        for question in ("left out", "none", "given", "of many")
    )
    for prompt in (left_out, of_many):
        asked = prompt.rpartition("[[ ## question ## ]]")[2]
        assert "## hint ##" not in asked
        assert "[[ ## tone ## ]]\ndry" in asked
    assert "[[ ## hint ## ]]\nNone" in none
    assert "[[ ## hint ## ]]\nmy hint\n\n[[ ## tone ## ]]\nwet" in given

    table, lines = tmp_path / "in.csv", tmp_path / "in.jsonl"
    table.write_text("question,tone\nleft out,dry\nof a table,wet\n")
    lines.write_text('{"question": "left out"}\n{"question": "of lines", "hint": null}\n')
    for file in (table, lines):
        out = tmp_path / f"{file.name}.out"
        dspyq("batch", "run", str(file), "--output", str(out), settings=path)
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert [(row["status"], row["metadata"]["cached"]) for row in rows] == [("ok", True), ("ok", False)]
    assert endpoint.calls() == 6
