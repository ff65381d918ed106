"""The command line: what it prints, and how it fails in one line."""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dspyq.prediction.request import hash_inputs
from dspyq.store.keys import alias_key
from tests.support.configuration import merged, write_settings
from tests.support.experiments import TABLE


def fault(done):
    """The one line that a failed command prints."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_help_teaches_with_examples_and_needs_no_configuration(dspyq):
    helped = dspyq("predict", "--help", settings="/nowhere.toml").stdout
    assert 'dspyq predict --program qa question="What is a task queue?"' in helped
    assert "dspyq cache warm questions.jsonl" in dspyq("cache", "warm", "--help", settings="/nowhere.toml").stdout


def test_version_is_printed(dspyq):
    assert dspyq("version").stdout.startswith("dspyq 0.")


def test_predict_prints_the_answer_and_where_it_came_from(dspyq, shared_worker):
    del shared_worker
    shown = dspyq("predict", "question=What is a task queue?").stdout
    assert "echo:What is a task queue?" in shown
    assert "qa.control · computed · openai/control" in shown
    answer = json.loads(dspyq("predict", "--json", '{"question": "What is a task queue?"}').stdout)
    assert answer["outputs"] == {"answer": "echo:What is a task queue?"}
    assert answer["metadata"]["cache_level"] == "redis"
    assert answer["metadata"]["cached"]
    assert answer["metadata"]["usage"]["total_tokens"] > 0


def test_an_answer_is_printed_as_it_is(dspyq, shared_worker):
    del shared_worker
    assert "echo:a [bold]plain[/red] text" in dspyq("predict", "question=a [bold]plain[/red] text").stdout


def test_predict_without_a_worker_gives_up_with_advice(dspyq):
    told = fault(dspyq("predict", "question=x", "--timeout", "0.2", ok=False))
    assert "no worker takes from its queue, qa.control: start one (celery -A dspyq worker)" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["quest=x"], "quest is unknown (did you mean question?)"),
        (["x"], "not of the form FIELD=VALUE"),
        (["{bad"], "not valid JSON"),
        (["--program", "qqa", "question=x"], "no program 'qqa' (did you mean qa?)"),
        (["--variant", "contrl", "question=x"], "no variant 'contrl' (did you mean control?)"),
    ],
)
def test_a_prediction_that_cannot_be_asked_is_one_line(arguments, told, dspyq):
    assert told in fault(dspyq("predict", *arguments, ok=False))


def test_a_redis_that_is_not_there_is_one_line_that_names_the_setting(dspyq):
    for arguments in (["predict", "question=x"], ["variants"], ["cache", "stats"], ["check"]):
        told = fault(dspyq(*arguments, redis_url="redis://127.0.0.1:1/0", ok=False))
        assert "ConnectionError" in told
        assert "DSPYQ_REDIS_URL" in told


def test_a_wrong_password_is_one_line_that_names_the_setting_and_not_the_password(dspyq, fresh_redis_server):
    server = fresh_redis_server(password="right")
    url = f"redis://:wr0ng-secret@127.0.0.1:{server.port}/0"
    for arguments in (["predict", "question=x"], ["check"]):
        told = fault(dspyq(*arguments, redis_url=url, ok=False))
        assert "AuthenticationError" in told
        assert "DSPYQ_REDIS_URL" in told
        assert "wr0ng-secret" not in told


def test_check_shows_what_is_served(dspyq):
    assert "is good" in dspyq("check").stdout
    (variant,) = json.loads(dspyq("check", "--json").stdout)["variants"]
    assert (variant["queue"], variant["model"], variant["weight"]) == ("qa.control", "openai/control", 1.0)


@pytest.fixture
def compared(settings_file, tmp_path):
    """A configuration of three variants: two differ, the third is equal to the first."""
    (tmp_path / "qa.json").write_text(
        json.dumps(
            {
                "demos": [{"question": "q", "answer": "a"}],
                "signature": {
                    "instructions": "Given the fields `question`, produce the fields `answer`.",
                    "fields": [
                        {"prefix": "Question:", "description": "${question}"},
                        {"prefix": "Answer:", "description": "${answer}"},
                    ],
                },
            }
        )
    )
    variants = {
        "control": {"model": "control", "weight": 0.5},
        "compiled": {
            "model": "control",
            "weight": 0.25,
            "state": "qa.json",
            "temperature": 0.25,
            "parameters": {"top_p": 0.5},
        },
        "same": {"model": "control", "weight": 0.25, "max_tokens": 1024},
    }
    return settings_file({"programs": {"qa": {"variants": variants}}})


def test_check_names_what_variants_differ_in_and_those_that_are_equal(dspyq, compared):
    found = json.loads(dspyq("check", "--json", settings=compared).stdout)
    state = hashlib.sha256(compared.with_name("qa.json").read_bytes()).hexdigest()[:8]
    assert found["differences"] == {
        "qa": {
            "state": {"control": None, "compiled": f"qa.json ({state})", "same": None},
            "temperature": {"control": None, "compiled": 0.25, "same": None},
            "parameters.top_p": {"control": None, "compiled": 0.5, "same": None},
        }
    }
    assert found["warnings"] == [
        "programs.qa.variants: control and same do not differ, so they share their answers",
    ]
    assert len({variant["fingerprint"] for variant in found["variants"]}) == 2


def test_check_warns_of_an_arm_whose_demonstrations_users_ask(dspyq, compared, configure, client):
    """Its answer may be cached in this arm or another."""
    table = TABLE | {"arms": ["control", "compiled"]}
    document = tomllib.loads(compared.read_text())
    write_settings(compared, merged(document, {"programs": {"qa": {"experiment": table}}}))
    warned = "programs.qa.variants.compiled.state: users ask 1 of the 1 questions in its demonstrations"

    def warnings():
        return " ".join(json.loads(dspyq("check", "--json", settings=compared).stdout)["warnings"])

    program = configure(compared).programs["qa"]
    of_another = hash_inputs("qa", program.fingerprints["control"], b'{"question":"another"}')
    client.hset(alias_key(of_another), "answered", "a task")
    assert "demonstrations" not in warnings()
    asked = hash_inputs("qa", program.fingerprints["control"], b'{"question":"q"}')
    client.hset(alias_key(asked), "answered", "a task")
    assert warned in warnings()


def test_check_shows_differences_in_a_table(dspyq, compared):
    shown = dspyq("check", settings=compared).stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["qa.compiled", "temperature", "0.25"] in lines
    assert ["qa.control", "temperature", "–"] in lines


def test_check_shows_no_differences_of_a_program_of_one_variant(dspyq):
    assert "differ" not in dspyq("check").stdout
    assert json.loads(dspyq("check", "--json").stdout)["differences"] == {"qa": {}}


def test_check_shows_every_fault_at_once_those_of_workers_too(dspyq, settings_file):
    path = settings_file(
        {
            "models": {"control": {"api_key_env": "NOT_SET_ANYWHERE"}, "unpriced": {"model": "openai/nobody-knows-me"}},
            "programs": {
                "qa": {"class": "nowhere.programs:Missing"},
                "other": {"signature": "a -> b", "variants": {"control": {"model": "unpriced"}}},
            },
        }
    )
    done = dspyq("check", settings=path, ok=False)
    for told in ("NOT_SET_ANYWHERE", "models.unpriced", "programs.qa.class: nowhere.programs:Missing does not import"):
        assert told in done.stderr
    assert all(line.startswith("dspyq: ") for line in done.stderr.splitlines())
    machine = json.loads(dspyq("check", "--json", settings=path, ok=False).stdout)
    assert not machine["ok"]
    assert len(machine["faults"]) == len(done.stderr.splitlines())


def test_a_configuration_that_cannot_be_read_is_one_line(dspyq, tmp_path):
    assert "cannot read" in fault(dspyq("check", settings=tmp_path / "none.toml", ok=False))
    (tmp_path / "bad.toml").write_text("[models")
    assert "not valid TOML" in fault(dspyq("check", settings=tmp_path / "bad.toml", ok=False))


def test_warming_answers_each_question_once_and_prints_its_cost(dspyq, shared_worker, tmp_path, endpoint):
    del shared_worker
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(f'{{"question": "q{number % 5}"}}\n' for number in range(8)))
    counts = json.loads(dspyq("cache", "warm", str(file), "--json").stdout)
    assert counts == {"rows": 8, "computed": 5, "cached": 3, "failed": 0}
    assert "8 rows: 0 computed, 8 cached, 0 failed" in dspyq("cache", "warm", str(file)).stdout
    assert endpoint.calls() == 5


def test_warming_names_the_bad_line(dspyq, tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text('{"question": "good"}\nnot json\n')
    assert f"{file}, line 2: not JSON" in fault(dspyq("cache", "warm", str(file), ok=False))
    file.write_text('{"question": "good"}\n{"quest": "bad"}\n')
    assert "row 2" in fault(dspyq("cache", "warm", str(file), ok=False))
    assert dspyq("cache", "warm", str(tmp_path / "none"), ok=False).returncode == 2
    file.write_text("")
    assert json.loads(dspyq("cache", "warm", str(file), "--json").stdout)["rows"] == 0


def test_invalidating_and_clearing_print_the_number_of_answers(dspyq, shared_worker, endpoint):
    del shared_worker
    for question in ("a", "b"):
        dspyq("predict", f"question={question}")
    assert json.loads(dspyq("cache", "stats", "--json").stdout)["entries"] == 2
    assert json.loads(dspyq("cache", "invalidate", "question=a", "--json").stdout) == {"forgotten": 1}
    assert json.loads(dspyq("cache", "clear", "--program", "qa", "--json").stdout) == {"forgotten": 1}
    assert "0 forgotten" in dspyq("cache", "clear", "--all").stdout
    assert dspyq("cache", "clear", ok=False).returncode == 2
    dspyq("predict", "question=a")
    assert endpoint.calls() == 3


def test_variants_are_shown_as_a_table_and_as_json(dspyq, shared_worker):
    del shared_worker
    dspyq("predict", "question=a")
    dspyq("predict", "question=a")
    table = dspyq("variants").stdout
    assert "qa.control" in table
    assert "50.0%" in table
    assert all(len(line) <= 80 for line in table.splitlines())
    (row,) = json.loads(dspyq("variants", "--json").stdout)
    assert (row["calls"], row["successes"], row["hits_redis"], row["hit_rate"]) == (2, 2, 1, 0.5)


def test_check_without_a_file_is_not_good(tmp_path):
    command = [sys.executable, "-m", "dspyq", "check"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DSPYQ_")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "dspyq: there is no dspyq.toml here; write one, or set DSPYQ_CONFIG to your configuration file"
    )


def test_check_prints_the_signature_that_producers_lack(dspyq, settings_file):
    path = settings_file({"programs": {"qa": {"class": "tests.programs.sample_classes:TwoSteps", "signature": None}}})
    line = 'add: signature = "question: str -> answer: str"'
    assert line in " ".join(dspyq("check", settings=path).stdout.split())
    (warning,) = json.loads(dspyq("check", "--json", settings=path).stdout)["warnings"]
    assert warning.endswith(line)
