"""A worker that cannot serve does not start: one line for each fault, no traceback, exit 1."""

import json
import subprocess
import sys

import pytest

from tests.support.configuration import environment

CLASSES = "tests.support.user_programs"


@pytest.fixture
def start(settings_file, redis_server, run_celery):
    def start(changes=None, *, toml=None, redis_url=None, env=None, arguments=(), options=(), run=run_celery):
        path = settings_file(changes, toml=toml)
        command = [*arguments, "-A", "dspyq", "worker", *options]
        done = run(*command, env=environment(path, redis_url or redis_server.url, env))
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return [line for line in done.stderr.splitlines() if line.startswith("dspyq: ")]

    return start


def test_every_program_and_model_that_cannot_be_served_is_one_line(start, tmp_path):
    field = {"prefix": "Text:", "description": ""}
    state = {"predict": {"demos": [], "signature": {"instructions": "", "fields": [field]}}}
    (tmp_path / "other.json").write_text(json.dumps(state))

    def program(model="control", signature="question -> answer", **keys):
        return {"signature": signature, "variants": {"control": {"model": model}}, **keys}

    unpriced = {"model": "openai/nobody-knows-me", "api_base": "http://127.0.0.1:1/v1"}
    lines = start(
        {
            "models": {"keyless": {"model": "openai/gpt-4o", "api_key_env": "NOT_SET_ANYWHERE"}, "unpriced": unpriced},
            "programs": {
                "absent": program(**{"class": "nowhere:Missing"}),
                "no-module": program(**{"class": f"{CLASSES}:Verdict"}),
                "unlike": program(signature="text -> answer", **{"class": f"{CLASSES}:Echo"}),
                "foreign-state": program(state="other.json"),
                "keyless": program("keyless"),
                "unpriced": program("unpriced"),
            },
        }
    )
    expected = {
        "programs.absent.class: nowhere:Missing does not import",
        "programs.no-module.class",
        "programs.unlike.",
        "programs.foreign-state.state",
        "NOT_SET_ANYWHERE",
        "models.unpriced.input_usd_per_million_tokens",
    }
    assert len(lines) == len(expected), lines
    for told in expected:
        assert [line for line in lines if told in line], (told, lines)


def spawn_celery(*arguments, env):
    command = [sys.executable, "-m", "celery", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)


@pytest.mark.parametrize("run", [None, spawn_celery], ids=["forked", "spawned"])
def test_every_fault_of_the_file_is_one_line(start, run_celery, run):
    variants = {"control": {"model": "contrl", "weight": 0.5}}
    changes = {"programs": {"qa": {"variants": variants}}, "cache": {"memory_entrys": 1}}
    lines = start(changes, run=run or run_celery)
    for told in ("did you mean control?", "sum to 0.5, not 1", "did you mean memory_entries?"):
        assert [line for line in lines if told in line]


def test_an_unreadable_configuration_is_one_line(start):
    (line,) = start(toml="[models")
    assert "not valid TOML" in line


def test_a_redis_that_is_not_there_is_one_line(start):
    (line,) = start(redis_url="redis://127.0.0.1:1/0")
    assert "DSPYQ_REDIS_URL" in line


def test_a_redis_with_another_password_is_one_line_without_it(start, fresh_redis_server):
    server = fresh_redis_server(password="right")
    (line,) = start(redis_url=f"redis://:wr0ng-secret@127.0.0.1:{server.port}/0")
    assert "DSPYQ_REDIS_URL" in line
    assert "AuthenticationError" in line
    assert "wr0ng-secret" not in line


def test_a_redis_that_evicts_jobs_is_refused_by_workers_and_check(start, fresh_redis_server, dspyq):
    server = fresh_redis_server(max_memory_bytes=100_000_000, max_memory_policy="allkeys-lru")
    (line,) = start(redis_url=server.url)
    assert "redis_url" in line
    assert "set its maxmemory-policy to noeviction" in line
    done = dspyq("check", redis_url=server.url, ok=False)
    assert "evicts (allkeys-lru)" in " ".join((done.stdout + done.stderr).split())


def test_a_broker_or_backend_named_past_the_settings_is_refused(start, redis_server):
    (line,) = start(arguments=["-b", redis_server.url.replace("/0", "/1")])
    assert "DSPYQ_REDIS_URL" in line
    (line,) = start(arguments=["--result-backend", redis_server.url])
    assert "DSPYQ_RESULT_URL" in line


def test_a_pool_of_forked_children_is_refused(start):
    for options in (["-P", "prefork"], ["--pool=processes"]):
        (line,) = start(options=options)
        assert "the prefork pool cannot run predictions: leave -P out" in line


def test_hooks_that_do_not_import_are_one_line_each(start):
    lines = start({"programs": {"qa": {"scorers": ["nowhere:score"], "categorize": f"{CLASSES}:nothing"}}})
    assert len(lines) == 2
    assert "programs.qa.scorers: nowhere:score" in lines[0]
    assert f"programs.qa.categorize: {CLASSES}:nothing" in lines[1]


def test_secrets_that_http_cannot_carry_are_refused_by_name_in_workers_and_check(start, settings_file, dspyq):
    changes = {"logging": {"loki_url": "http://127.0.0.1:1", "loki_authorization_env": "LOKI_HEADER"}}
    for variable, setting in (("MODEL_API_KEY", "api_key_env"), ("LOKI_HEADER", "loki_authorization_env")):
        env = {"LOKI_HEADER": "fine", variable: "canary\nkey\n"}
        (line,) = start(changes, env=env)
        done = dspyq("check", settings=settings_file(changes), env=env, ok=False)
        for said in (line, " ".join(done.stderr.split())):
            assert f"{setting}: the environment variable {variable} holds a control character" in said
            assert "canary" not in said
